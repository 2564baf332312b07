"""Tables of arms, of criteria with their tests, and of trials."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fnostab.decision import ArmSummary, Criterion, Stage, State, Verdict
from fnostab.record.outcomes import Outcome

MOST_TRIALS = 60  # listed in a terminal
COLOURS = {State.MET: "green", State.NOT_MET: "red", State.UNTESTABLE: "yellow"}


def criteria_table(stage: str, verdict: Verdict) -> Table:
    """Make the table of a stage's criteria."""
    control = next((answer.control_arm for answer in verdict.answers), "control")
    title = _titled(verdict.stage_title(stage), f"criteria, arm against {control}; p corrected for the number of arms")
    table = plain_table(title, ("arm", "criterion", "state"), "evidence")
    for arm, names, state, evidence in _alike(c for c in verdict.criteria if c.stage == stage):
        table.add_row(arm, "\n".join(names), Text(state, style=COLOURS[state]), evidence)
    return table


def evidence_text(criterion: Criterion) -> str:
    """Write the observed numbers, effect and test of a criterion."""
    test = test_text(criterion)
    return f"{criterion.detail}; {test}" if test else criterion.detail


def test_text(c: Criterion) -> str:
    """Write effect, interval, test, p and whether it is significant; empty if no test was made."""
    if c.supported is None or c.state is State.UNTESTABLE or c.test is None or c.p is None:
        return ""
    luck = "" if c.state is not State.MET else ", significant" if c.supported else ", could be luck"
    effect = ""
    if c.effect is not None:
        what = "reduction" if c.name == "fewer_failures" else "ratio" if c.is_ratio else "difference"
        interval = f" [{c.ci[0]:.3g}, {c.ci[1]:.3g}]" if c.ci else ""
        effect = f"{what} {c.effect:.3g}{interval}, "
    return f"{effect}{c.test}, p = {c.p:.3g} (one-sided){luck}"


def percent(interval: tuple[float, float] | None) -> str:
    """Write an interval of rates as ``5%-51%``; ``-`` for None."""
    return "-" if interval is None else f"{interval[0]:.0%}-{interval[1]:.0%}"


def plain_table(title: str, columns: Sequence[str], wrapped: str | None = None) -> Table:
    """Make a table without lines; its last column ``wrapped`` takes the remaining width, and long names are folded."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        is_name = column == "arm"
        table.add_column(column, no_wrap=not is_name, overflow="fold" if is_name else "ellipsis")
    if wrapped:
        table.add_column(wrapped)
    return table


def _alike(criteria: Iterable[Criterion]) -> Iterable[tuple[str, list[str], State, str]]:
    """Merge consecutive criteria of an arm that have the same state and evidence into one row."""
    for (arm, state, evidence), group in groupby(criteria, lambda c: (c.arm, c.state, evidence_text(c))):
        yield arm, [c.name if c.decides else f"({c.name})" for c in group], state, evidence


def _titled(stage: str, what: str) -> str:
    return f"{stage}: {what}" if stage else what[0].upper() + what[1:]


def arms_table(stage: Stage, verdict: Verdict, title: str = "") -> Table:
    """Make the table of a stage's arms: failures, medians and outcomes."""
    title = title or verdict.stage_title(stage.name)
    judged = verdict.rules.failure_judged
    median = "median of those\nthat did not fail" if judged else f"median {verdict.rules.metric}"
    arms = plain_table(title, ("arm", "failed", "95 %", median), "outcomes")
    for s in (summary for summary in verdict.arms if summary.stage == stage.name):
        middle = "-" if s.median is None else f"{s.median:.4g}"
        failed = f"{s.n_failed}/{s.n}" if s.n_failed or judged else f"not judged ({s.n})"
        arms.add_row(s.arm, failed, percent(s.failure_rate_ci if judged else None), middle, outcomes_text(s, judged))
    return arms


def outcomes_text(summary: ArmSummary, judged: bool) -> str:
    """Count an arm's trials by outcome, as ``5 converged, 1 missing``; ``judged``: whether failures were judged."""
    found = dict(summary.outcomes)
    if "missing" in summary.left_out:
        found["missing"] = len(summary.left_out["missing"])
    names = {} if judged else {str(Outcome.CONVERGED): "not judged"}
    return ", ".join(f"{n} {names.get(outcome, outcome)}" for outcome, n in sorted(found.items()))


def trial_table(stage: Stage, verdict: Verdict) -> Iterable[RenderableType]:
    """Make the table of trials and their runs; above `MOST_TRIALS` only of trials that did not converge."""
    recorded = [t for t in stage.trials if t.run_id is not None]
    shown = recorded if len(recorded) <= MOST_TRIALS else [t for t in recorded if t.outcome is not Outcome.CONVERGED]
    if not shown:
        return
    title = _titled(verdict.stage_title(stage.name), f"{len(shown)} of {len(recorded)} trials and their runs")
    table = plain_table(title, ("arm", "seed", "outcome", verdict.rules.metric, "failed at", "MLflow run"))
    for t in shown[:MOST_TRIALS]:
        loss = "-" if t.loss is None else f"{t.loss:.4g}"
        failed_at = "-" if t.failure_step is None else f"step {t.failure_step}"
        table.add_row(t.arm, str(t.seed), str(t.outcome), loss, failed_at, t.run_id)
    yield table
    if len(shown) > MOST_TRIALS:
        yield Text(f"... and {len(shown) - MOST_TRIALS} more; --json lists all of them")


def median_and_iqr(summary: ArmSummary) -> str:
    """Write the median and quartiles of the successes, with their number."""
    if summary.median is None or summary.iqr is None:
        return f"none of {summary.n} did not fail"
    low, high = summary.iqr
    return f"{summary.median:.4g} [{low:.4g}, {high:.4g}], {summary.n_ok} of {summary.n}"
