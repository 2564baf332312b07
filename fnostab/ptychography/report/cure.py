"""Results of the search for a cure: one row for each arm of each step, as tables and as files."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.table import Table

from fnostab.decision import ArmSummary, Criterion, Rules, Stage
from fnostab.decision.criteria import stage_criteria
from fnostab.decision.pairs import pairs_of
from fnostab.decision.stress import Stress, margin_text
from fnostab.decision.tally import summarise
from fnostab.ptychography import measured
from fnostab.record.outcomes import Outcome
from fnostab.report.pictures import Picture
from fnostab.report.tables import plain_table
from fnostab.stats.interval import Interval
from fnostab.stats.losses import median_interval
from fnostab.stats.proportions import fewer_failures_p, holm
from fnostab.stats.rate import Rate

__all__ = [
    "COLUMNS",
    "CureRow",
    "SearchReport",
    "SearchStep",
    "claims",
    "cure_rows",
    "cure_table",
    "ranked",
    "write_rows",
    "write_trials",
]

COLUMNS = ("step", "arm", "failed", "failure rate (95 %)", "half fail at (95 %)", "median loss (95 %)", "SSIM", "p")


@dataclass(frozen=True)
class CureRow:
    """One arm in one step.

    Attributes:
        step: of the search.
        summary: failures, losses and SSIM.
        losses: of its successes.
        margin: the stability margin with its interval, as text; empty if it was not stressed.
        p: one-sided Boschloo that it fails less often than control, Holm over the step's arms; None of control.
    """

    step: str
    summary: ArmSummary
    losses: Sequence[float]
    margin: str
    p: float | None

    @property
    def loss_interval(self) -> Interval | None:
        """Bootstrap 95 % interval of the median loss."""
        return median_interval(self.losses) if len(self.losses) > 1 else None

    def cells(self) -> tuple[str, ...]:
        """Cells of the row, in the order of `COLUMNS`."""
        s, interval = self.summary, self.loss_interval
        median = "-" if s.median is None else f"{s.median:.4g}"
        between = "" if interval is None else f" ({interval.low:.4g} to {interval.high:.4g})"
        rate = s.failure_rate_ci
        return (
            self.step,
            s.arm,
            f"{s.n_failed}/{s.n}",
            "-" if rate is None else f"{s.failure_rate:.0%} ({rate[0]:.0%} to {rate[1]:.0%})",
            self.margin or "-",
            f"{median}{between}",
            f"{s.measures[measured.VAL_SSIM_AMP]:.3f}" if measured.VAL_SSIM_AMP in s.measures else "-",
            "" if self.p is None else f"{self.p:.2g}",
        )


@dataclass(frozen=True)
class SearchStep:
    """One step of the search: what was run, and what became of it.

    Attributes:
        name: of the step.
        what: which arms were run, on which seeds, and with which settings, in words.
        stage: its trials.
        rows: one for each arm, control first; none of the stress study, which the report shows as a figure.
    """

    name: str
    what: str
    stage: Stage
    rows: Sequence[CureRow] = ()


@dataclass(frozen=True)
class SearchReport:
    """The whole search, before it is HTML or Markdown.

    Attributes:
        chosen: the arm.
        said: what the steps say together, a line each, first whether that arm held.
        steps: in order.
        picture: failure rate against the stressed setting.
        profile: size of the problem.
        not_run: what the search says nothing about.
        command: that made it.
        minutes: that its last go took.
        machine: it ran on, and versions.
    """

    chosen: str
    said: Sequence[str]
    steps: Sequence[SearchStep]
    picture: Picture
    profile: str
    not_run: str
    command: str
    made_at: datetime
    minutes: float
    machine: str
    columns: Sequence[str] = COLUMNS


def cure_rows(step: str, stage: Stage, control: str, stress: Stress | None = None) -> list[CureRow]:
    """A row for each arm that was run in a step, control first.

    Args:
        step: its name.
        stage: its trials.
        control: the arm that others are compared with.
        stress: margins of arms by the same names, if they were measured.
    """
    margins = {arm.name: margin_text(arm) for arm in stress.arms} if stress else {}
    arms = [control, *(arm for arm in stage.arms if arm != control)]
    summaries = {arm: summarise(stage, arm, control) for arm in arms}
    of_control = summaries[control]
    raw = [
        fewer_failures_p(control=Rate(of_control.n_failed, of_control.n), arm=Rate(s.n_failed, s.n))
        for s in summaries.values()
    ][1:]
    adjusted = [None, *holm(raw)]
    return [
        CureRow(step, summaries[arm], _losses(stage, arm), margins.get(arm, ""), p)
        for arm, p in zip(arms, adjusted, strict=True)
    ]


def ranked(rows: Sequence[CureRow]) -> list[str]:
    """Arms but control, the best first: the fewest failures, and among those the lowest median loss.

    It takes the share of failures, as arms may have lost trials to the machine.
    """

    def key(row: CureRow) -> tuple[float, float]:
        s = row.summary
        return (
            s.failure_rate if s.failure_rate is not None else 1.0,
            s.median if s.median is not None else float("inf"),
        )

    return [row.summary.arm for row in sorted(rows[1:], key=key)]


def claims(stage: Stage, control: str, name: str) -> dict[str, Criterion]:
    """A criterion for every arm but control, as `fnostab decide` judges it."""
    rules = Rules()
    return {c.arm: c for c in stage_criteria(pairs_of(stage, control, rules), rules) if c.name == name}


def cure_table(title: str, rows: Sequence[CureRow]) -> Table:
    """Table for a terminal: `COLUMNS` closer together, and margins without intervals."""
    table = plain_table(title, ("arm", "failed", "95 %", "half at", "median loss (95 %)", "SSIM", "p"))
    for row in rows:
        s, interval = row.summary, row.loss_interval
        between = "" if interval is None else f" ({interval.low:.3f}-{interval.high:.3f})"
        rate = s.failure_rate_ci
        table.add_row(
            s.arm,
            f"{s.n_failed}/{s.n}",
            "-" if rate is None else f"{100 * rate[0]:.0f}-{100 * rate[1]:.0f}",
            row.margin.partition(" (")[0].replace("beyond ", "> ").replace("before ", "< ") or "-",
            "-" if s.median is None else f"{s.median:.3f}{between}",
            f"{s.measures[measured.VAL_SSIM_AMP]:.3f}" if measured.VAL_SSIM_AMP in s.measures else "-",
            "" if row.p is None else f"{row.p:.2g}",
        )
    return table


def write_rows(steps: Iterable[SearchStep], path: Path) -> None:
    """Write the rows of all steps as CSV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(row.cells() for step in steps for row in step.rows)


def write_trials(steps: Iterable[SearchStep], path: Path) -> None:
    """Write every trial of every step as CSV: what all rows are made from."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("step", "arm", "seed", "outcome", "val_loss_best", "val_ssim_amp", "failure_step", "last_step")
        )
        for step in steps:
            for t in step.stage.trials:
                numbers = (t.loss, t.measures.get(measured.VAL_SSIM_AMP), t.failure_step, t.last_step)
                shown = ("" if value is None else f"{value:.6g}" for value in numbers)
                writer.writerow((step.name, t.arm, t.seed, t.outcome, *shown))


def _losses(stage: Stage, arm: str) -> list[float]:
    return [t.loss for t in stage.arm(arm) if t.outcome is Outcome.CONVERGED and t.loss is not None]
