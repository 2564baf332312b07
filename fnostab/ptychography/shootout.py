"""Commands for the shootout that follows a study of depths, at the depth of one of its arms."""

import shlex
from typing import TYPE_CHECKING, Any

from fnostab.record.settings import value_text

if TYPE_CHECKING:
    from fnostab.study.study import Study

SHOOTOUT = "stage_a"
DEPTH = "model.fno_blocks"
FILLED_IN = ("data.sha256", "data.probe.sha256", "data.object.sha256", "code_hash")  # set when a study is resolved


def shootouts(study: "Study") -> dict[str, str]:
    """For each arm of a study of depths, the command that runs the shootout with that arm's settings.

    Empty for a study whose arms differ in any other setting.
    """
    from fnostab.study.file import read_study_file
    from fnostab.study.study import Study

    others = [{name: value for name, value in arm.items() if name != DEPTH} for arm in study.arms.values()]
    depths = {arm[DEPTH] for arm in study.arms.values()}
    if len(depths) < 2 or any(other != others[0] for other in others):
        return {}
    file = read_study_file(SHOOTOUT)
    usual = Study(file, study.profile, task=study.task).arms[file.control]
    return {arm: _command(usual, settings, study.profile) for arm, settings in study.arms.items()}


def _command(usual: Any, settings: Any, profile: str | None) -> str:
    differing = {n: v for n, v in settings.items() if n not in FILLED_IN and usual.get(n) != v}
    given = "".join(f" --set {shlex.quote(f'{name}={value_text(value)}')}" for name, value in differing.items())
    experiment = f"{SHOOTOUT}_{settings[DEPTH]}_blocks"
    return f"fnostab run {SHOOTOUT} --profile {profile}{given} --experiment {experiment}"
