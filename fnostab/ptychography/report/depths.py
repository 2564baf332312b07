"""What a study of one network at several depths says, as `crash_hunt` does."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from fnostab.ptychography.depths import Depths
from fnostab.record.trial import StudySpec
from fnostab.report.verdict import Case, conditions, median_and_iqr, percent, plain_table, trial_table

__all__ = ["DEPTH", "blocks_of_arms", "render_depths"]

DEPTH = "model.fno_blocks"


def blocks_of_arms(study: StudySpec) -> Mapping[str, int] | None:
    """Blocks of each arm of a study whose arms differ in nothing else; None of any other study."""
    others = [{name: value for name, value in arm.items() if name != DEPTH} for arm in study.arms.values()]
    blocks = {arm: settings[DEPTH] for arm, settings in study.arms.items() if DEPTH in settings}
    only_depth = len(blocks) == len(study.arms) and all(other == others[0] for other in others)
    return blocks if only_depth and len(set(blocks.values())) > 1 else None


def render_depths(case: Case, depths: Depths) -> RenderableType:
    """Tables for a terminal: the trials, each depth, and what they say."""
    table = plain_table(
        "Failure rate by depth", ("blocks", "arm", "failed", "95 % CI", "median [IQR] (n_ok/N)"), "outcomes"
    )
    for depth in depths.depths:
        s = depth.summary
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in sorted(s.outcomes.items()))
        failed, median = (f"{s.n_failed}/{s.n}", median_and_iqr(s)) if s.n else ("-", "-")
        table.add_row(str(depth.blocks), s.arm, failed, percent(s.failure_rate_ci), median, outcomes)
    left_out = [line.removeprefix("Stage A, ") for d in depths.depths if (line := d.summary.excluded_line)]
    parts = [each for stage in case.stages for each in trial_table(stage)]
    parts += [
        table,
        *([Text("\n".join(left_out))] if left_out else []),
        Text("\n".join(conditions(case.studies)), style="dim"),
        Text.assemble((depths.finding, "bold"), f"\nnext: {case.verdict.next_step}"),
    ]
    return Group(*(part for each in parts for part in (each, Text())))
