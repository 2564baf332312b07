"""A verdict as a person, a program and a web page read it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fnostab.decision import ArmSummary, Criterion, Robustness, Stage, State, Stress, Verdict, VerdictName
from fnostab.ptychography.depths import Depths
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import StudySpec

__all__ = [
    "Case",
    "arms_table",
    "conditions",
    "evidence_text",
    "headline",
    "median_and_iqr",
    "percent",
    "plain_table",
    "remarks",
    "render",
    "render_briefly",
    "to_json",
    "to_markdown",
    "trial_table",
]

COLOURS = {
    VerdictName.GOLD: "bold yellow",
    VerdictName.SILVER: "bold",
    VerdictName.PIVOT: "bold magenta",
    VerdictName.INCONCLUSIVE: "bold cyan",
    State.MET: "green",
    State.NOT_MET: "red",
    State.UNTESTABLE: "yellow",
}
MOST_TRIALS = 60  # listed in a terminal
OF_CONTROL = {  # what a verdict holds for, as the control arm has it
    "learning rate": "training.learning_rate",
    "blocks": "model.fno_blocks",
    "epochs": "training.epochs",
}


@dataclass(frozen=True)
class Case:
    """A verdict with all that it was made from.

    Attributes:
        studies: by stage; empty for a table from a file.
        depths: of a study that compares nothing but depths; None of any other.
        stress: of a stress study; None of any other.
    """

    verdict: Verdict
    robustness: Robustness
    stages: Sequence[Stage]
    studies: Mapping[str, StudySpec]
    depths: Depths | None = None
    stress: Stress | None = None


def headline(verdict: Verdict) -> str:
    """The verdict's name, marked where its tests do not support it."""
    return f"{verdict.name}{' (unsupported)' if verdict.supported is False else ''}"


def conditions(studies: Mapping[str, StudySpec]) -> list[str]:
    """What the verdict holds for: profile, learning rate, depth and horizon of each stage's control."""
    lines = []
    for stage, study in studies.items():
        control = study.arms[study.control]
        values = ", ".join(f"{label} {control[key]:g}" for label, key in OF_CONTROL.items())
        lines.append(f"Stage {stage.upper()}: {study.name}, {study.profile} profile, {values}")
    if any(study.profile == "small" for study in studies.values()):
        lines.append("The small profile is a scale model: a demonstration, not a basis for policy.")
    return lines


def render(case: Case) -> RenderableType:
    """Tables for a terminal, every number with the runs that it came from."""
    verdict = case.verdict
    parts = [table for stage in case.stages for table in trial_table(stage)]
    for stage in case.stages:
        parts += [arms_table(stage, verdict), _criteria_table(stage, verdict)]
    parts.append(Text("\n".join(remarks(case))))
    if case.studies:
        parts.append(Text("\n".join(conditions(case.studies)), style="dim"))
    return Group(*(part for each in (*parts, _conclusion(verdict)) for part in (each, Text())))


def render_briefly(case: Case) -> RenderableType:
    """What became of each arm, and the verdict: for a terminal that has shown the trials already."""
    tables = [arms_table(stage, case.verdict) for stage in case.stages]
    return Group(*(part for each in tables for part in (each, Text())), _conclusion(case.verdict))


def _conclusion(verdict: Verdict) -> RenderableType:
    return Group(
        Text.assemble((headline(verdict), COLOURS[verdict.name]), f": {verdict.reason}"),
        Text(f"next: {verdict.next_step}"),
    )


def to_json(case: Case) -> dict[str, Any]:
    """Everything that `render` shows, JSON-ready."""
    verdict, robustness = case.verdict, case.robustness
    return {
        "verdict": str(verdict.name),
        "supported": verdict.supported,
        "reason": verdict.reason,
        "next_step": verdict.next_step,
        "winner": verdict.winner,
        "stage_b": list(verdict.stage_b),
        "conditions": conditions(case.studies),
        "studies": {s: {"name": x.name, "hash": x.hash, "profile": x.profile} for s, x in case.studies.items()},
        "arms": [asdict(summary) for summary in verdict.arms],
        "criteria": [{**asdict(criterion), "state": str(criterion.state)} for criterion in verdict.criteria],
        "stress": None if case.stress is None else asdict(case.stress),
        "lowest_failing_depth": case.depths.lowest.blocks if case.depths and case.depths.lowest else None,
        "robustness": {
            "changed_outcomes_to_flip": robustness.to_flip,
            "at_collapse_thresholds": {str(k): str(v) for k, v in robustness.at_thresholds.items()},
            "more_seeds": [asdict(each) for each in robustness.more_seeds],
        },
        "trials": [
            {"stage": s.name, **vars(t), "outcome": str(t.outcome), "rules_held": [str(r) for r in t.rules_held]}
            for s in case.stages
            for t in s.trials
        ],
    }


def to_markdown(case: Case) -> str:
    """The same as Markdown, for the verdict's page in MLflow."""
    verdict = case.verdict
    lines = [f"**{headline(verdict)}**: {verdict.reason}", "", f"Next: {verdict.next_step}", ""]
    lines += [f"- {line}" for line in (*remarks(case), *conditions(case.studies))]
    lines += [
        "",
        "| stage | arm | failed | 95 % interval | median of successes [IQR] (n_ok/N) |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.stage} | {s.arm} | {s.n_failed}/{s.n} | {percent(s.failure_rate_ci)} | {median_and_iqr(s)} |"
        for s in verdict.arms
    ]
    lines += ["", "| stage | arm | criterion | state | evidence | test |", "|---|---|---|---|---|---|"]
    lines += [f"| {c.stage} | {c.arm} | {c.name} | {c.state} | {c.detail} | {_test(c)} |" for c in verdict.criteria]
    return "\n".join(lines) + "\n"


def remarks(case: Case) -> list[str]:
    """What stands beside the tables, a line each."""
    verdict, robustness = case.verdict, case.robustness
    lines = [*verdict.best, *(s.excluded_line for s in verdict.arms if s.excluded_line)]
    for s in verdict.arms:
        if s.matched_ratio is not None:
            pairs = f"{s.matched_pairs} matched seed{'s' if s.matched_pairs != 1 else ''}"
            lines.append(
                f"Stage {s.stage.upper()}, {s.arm} to control: loss ratio {s.matched_ratio:.3f} over {pairs}; "
                f"failures ranked below every success, p = {s.worst_rank_p:.3f}"
            )
    changed = [f"{name} at {threshold:g}" for threshold, name in robustness.at_thresholds.items()]
    if any(name is not verdict.name for name in robustness.at_thresholds.values()) and verdict.supported is not None:
        lines.append(f"the verdict depends on the collapse threshold: {', '.join(changed)}")
    if case.studies or robustness.more_seeds:
        flip = robustness.to_flip
        lines.append(f"changed outcomes that would flip the verdict: {'more than 3' if flip is None else flip}")
    lines += [f"seeds for {each}" for each in robustness.more_seeds]
    return lines


def arms_table(stage: Stage, verdict: Verdict, title: str = "") -> Table:
    """What became of each arm of a stage."""
    title = title or f"Stage {stage.name.upper()}: what became of each arm"
    arms = plain_table(title, ("arm", "failed", "95 % CI", "median [IQR] (n_ok/N)"), "outcomes")
    for s in (summary for summary in verdict.arms if summary.stage == stage.name):
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in sorted(s.outcomes.items()))
        arms.add_row(s.arm, f"{s.n_failed}/{s.n}", percent(s.failure_rate_ci), median_and_iqr(s), outcomes)
    return arms


def _criteria_table(stage: Stage, verdict: Verdict) -> Table:
    title = f"Stage {stage.name.upper()}: criteria, arm against control"
    criteria = plain_table(title, ("arm", "criterion", "state"), "evidence")
    for arm, names, state, evidence in _alike(c for c in verdict.criteria if c.stage == stage.name):
        criteria.add_row(arm, "\n".join(names), Text(state, style=COLOURS[state]), evidence)
    return criteria


def trial_table(stage: Stage) -> Iterable[RenderableType]:
    """Trials with their runs: all of them, or only those that did not converge where they are many."""
    recorded = [t for t in stage.trials if t.run_id is not None]
    shown = recorded if len(recorded) <= MOST_TRIALS else [t for t in recorded if t.outcome is not Outcome.CONVERGED]
    if not shown:
        return
    title = f"Stage {stage.name.upper()}: {len(shown)} of {len(recorded)} trials and their runs"
    table = plain_table(title, ("arm", "seed", "outcome", "loss", "failed at", "MLflow run"))
    for t in shown[:MOST_TRIALS]:
        loss = "-" if t.loss is None else f"{t.loss:.4g}"
        failed_at = "-" if t.failure_step is None else f"step {t.failure_step}"
        table.add_row(t.arm, str(t.seed), str(t.outcome), loss, failed_at, t.run_id)
    yield table
    if len(shown) > MOST_TRIALS:
        yield Text(f"... and {len(shown) - MOST_TRIALS} more; --json lists all of them")


def plain_table(title: str, columns: Sequence[str], wrapped: str | None = None) -> Table:
    """A table without lines, whose last column ``wrapped`` takes what room is left."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    if wrapped:
        table.add_column(wrapped)
    return table


def _alike(criteria: Iterable[Criterion]) -> Iterable[tuple[str, list[str], State, str]]:
    """Neighbouring criteria of an arm with the same state for the same reason, as one line."""
    for (arm, state, evidence), group in groupby(criteria, lambda c: (c.arm, c.state, evidence_text(c))):
        yield arm, [c.name if c.decides else f"({c.name})" for c in group], state, evidence


def evidence_text(criterion: Criterion) -> str:
    """Observed numbers, effect and test of a criterion."""
    test = _test(criterion)
    return f"{criterion.detail}; {test}" if test else criterion.detail


def _test(c: Criterion) -> str:
    """Effect, interval, test, p and what they say, in words; empty where no test was made."""
    if c.supported is None or c.state is State.UNTESTABLE:
        return ""
    support = ("supported" if c.supported else "unsupported") if c.state is State.MET else ""
    if c.test is None or c.p is None:
        return support
    effect = ""
    if c.effect is not None:
        what = "reduction" if c.name == "fewer_failures" else "ratio"
        interval = f" [{c.ci[0]:.3g}, {c.ci[1]:.3g}]" if c.ci else ""
        effect = f"{what} {c.effect:.3g}{interval}, "
    return f"{effect}{c.test} p = {c.p:.3g}{', ' if support else ''}{support}"


def percent(interval: tuple[float, float] | None) -> str:
    """An interval of rates, as in ``5%-51%``."""
    return "-" if interval is None else f"{interval[0]:.0%}-{interval[1]:.0%}"


def median_and_iqr(summary: ArmSummary) -> str:
    """Of the successes, beside how many they are."""
    if summary.median is None or summary.iqr is None:
        return f"none (0/{summary.n})"
    low, high = summary.iqr
    return f"{summary.median:.4g} [{low:.4g}, {high:.4g}] ({summary.n_ok}/{summary.n})"
