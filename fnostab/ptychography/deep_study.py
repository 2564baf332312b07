"""Build a deep study from the arms of an earlier study."""

from collections.abc import Mapping
from typing import Any

from fnostab.errors import ConfigError
from fnostab.ptychography.task import Ptychography
from fnostab.record.settings import flatten
from fnostab.record.trial import StudySpec
from fnostab.study.file import StudyFile
from fnostab.study.study import Study

DEPTH = "model.fno_blocks"


def deep_study(
    file: StudyFile, earlier: StudySpec, profile: str = "auto", overrides: Mapping[str, Any] | None = None
) -> Study:
    """Repeat the arms, roles and rules of ``earlier`` with the defaults and profile settings of ``file``.

    All other settings of an arm, such as its learning rate, are those it was run with; settings of single arms in
    ``file`` are ignored. The profile is that of ``earlier``.

    Args:
        file: study file of the deep study.
        earlier: study whose arms are used.
        profile: profile of ``earlier``, or "auto".
        overrides: dotted settings that take precedence over all others.

    Raises:
        ConfigError: the profile differs, a setting is not accepted, or an arm would not be deeper than before.
    """
    task = Ptychography()
    if profile != "auto" and task.choose_profile(profile, gpus=False) != earlier.profile:
        raise ConfigError(
            f"profile={profile!r}, but {earlier.experiment} was run with the {earlier.profile} profile, whose settings "
            "its arms keep: leave out --profile"
        )
    said = flatten(file.defaults) | flatten(file.profiles.get(earlier.profile or "", {}))
    arms = {arm: dict(settings) | said for arm, settings in earlier.arms.items()}
    own = {
        "control": earlier.control,
        "arms": arms,
        "roles": dict(earlier.roles),
        "metric": earlier.metric,
        "margin": earlier.margin,
        "alpha": earlier.alpha,
        "defaults": {},
        "profiles": {},
    }
    study = Study(file.model_copy(update=own), earlier.profile, overrides, task)
    for arm, settings in study.arms.items():
        before = earlier.arms[arm].get(DEPTH)
        if before is not None and settings[DEPTH] <= before:
            raise ConfigError(
                f"{DEPTH}={settings[DEPTH]} is not deeper than arm {arm} was in {earlier.experiment} "
                f"({before}): set more, as with --set {DEPTH}={2 * before}"
            )
    return study
