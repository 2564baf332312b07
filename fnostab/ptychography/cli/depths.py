"""What `fnostab decide` makes of a study whose arms differ only in depth: where to run the shootout."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fnostab.ptychography.depths import Depths
    from fnostab.record.trial import StudySpec
    from fnostab.report.verdict import Case

__all__ = ["shootout_at", "with_depths"]

SHOOTOUT = "stage_a"


def with_depths(case: Case) -> Case:
    """The same case with what its depths say, if its study compares nothing else; else as it is."""
    from fnostab.ptychography.depths import compare_depths
    from fnostab.ptychography.report.depths import blocks_of_arms

    study = case.studies.get("a")
    blocks = blocks_of_arms(study) if study else None
    if study is None or blocks is None or len(case.stages) > 1:
        return case
    depths = compare_depths(case.stages[0], blocks, study.control)
    verdict = replace(case.verdict, reason=depths.finding, next_step=_next_step(depths, study))
    return replace(case, verdict=verdict, depths=depths)


def _next_step(depths: Depths, study: StudySpec) -> str:
    if depths.lowest is not None:
        return shootout_at(depths.lowest.summary.arm, study)
    seen = [depth for depth in depths.depths if depth.summary.n]
    if not seen:
        return "`fnostab run` with --retry-oom, a smaller model.max_hidden_channels or training.batch_size"
    bound = seen[-1].summary.failure_rate_upper
    return (
        f"more seeds or more blocks: {seen[-1].summary.n} trials without a failure at {seen[-1].blocks} blocks "
        f"leave a failure rate of up to {bound or 0:.0%} possible (95 %)"
    )


def shootout_at(arm: str, study: StudySpec) -> str:
    """The command that runs the shootout with the depth, and all other settings, of an arm of ``study``."""
    from fnostab.study.study import load_study

    shootout = load_study(SHOOTOUT, study.profile or "auto")
    usual = shootout.arms[shootout.file.control]
    settings = study.arms[arm]
    differing = {n: v for n, v in settings.items() if n != "data.probe.sha256" and (n not in usual or usual[n] != v)}
    given = "".join(f" --set {shlex.quote(f'{name}={_as_yaml(value)}')}" for name, value in differing.items())
    experiment = f"{SHOOTOUT}_{settings['model.fno_blocks']}_blocks"
    return f"fnostab run {SHOOTOUT} --profile {study.profile}{given} --experiment {experiment}"


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
