"""The report of a whole chain of studies, before it is HTML or Markdown: what was asked, run and found, in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from fnostab import __version__
from fnostab.decision import ArmSummary, Criterion, Roles, Rules, Stage, decide
from fnostab.record import names
from fnostab.record.settings import value_text
from fnostab.record.table import TrialRow
from fnostab.record.trial import StudySpec
from fnostab.report.case import Case
from fnostab.report.content import OnCase, differences, failure_rates
from fnostab.report.pictures import Picture
from fnostab.report.remarks import best_arms, left_out

__all__ = ["Chapter", "Decision", "Drift", "Moments", "Ran", "Story", "chapter", "drifts"]

Moments = Mapping[str, Mapping[str, Mapping[str, Any]]]  # arm -> when -> what `fnostab activations` writes of it


@dataclass(frozen=True)
class Drift:
    """Means of the outputs of an arm's first and last block, as medians over seeds, and whether they grow.

    Attributes:
        when: "initialisation" or "after training".
        slope: change of the mean from one block to the next.
        interval: of the slope, 95 %; None with one seed.
        growth: "grows", "does not grow" or "can't tell".
    """

    arm: str
    when: str
    seeds: int
    first_mean: float
    last_mean: float
    slope: float
    interval: tuple[float, float] | None
    growth: str


@dataclass(frozen=True)
class Decision:
    """A verdict within the chain, or what a study at its end found; ``page`` is the address of its run.

    ``next_step`` is empty where the chain has taken it.
    """

    headline: str
    reason: str
    next_step: str
    run_id: str
    page: str


@dataclass(frozen=True)
class Ran:
    """A study of the chain: what it is called in the report, why it was run, and what it is in the store."""

    title: str
    why: str
    study: StudySpec
    trials: Sequence[TrialRow]
    page: str


@dataclass(frozen=True)
class Chapter:
    """One study of the chain as the report shows it.

    Attributes:
        changes: of each arm, the settings in which it differs from control, as "name=value".
        against: of each arm, the p-value of `fewer_failures` against control; None where it was not tested.
        finding: in a sentence, of a study without a decision.
        left_out: a line for each arm with trials that take no part.
    """

    ran: Ran
    arms: Sequence[ArmSummary]
    changes: Mapping[str, Sequence[str]]
    against: Mapping[str, float | None]
    rates: Picture
    finding: str
    left_out: Sequence[str]
    decisions: Sequence[Decision]


@dataclass(frozen=True, kw_only=True)
class Story(OnCase):
    """Everything that the report of a chain shows.

    Attributes:
        case: its last verdict on the stages.
        chapters: its studies, in the order in which they were run.
        drifts: of the activations of each arm's blocks.
        next_step: what is left to do after the last study.
        store: address that may be shown.
    """

    case: Case
    chapters: Sequence[Chapter]
    drifts: Sequence[Drift]
    next_step: str
    commands: Sequence[str]
    verdict_page: str
    store: str
    made_at: datetime
    version: str = __version__

    @property
    def criteria(self) -> list[Criterion]:
        """Criteria that the verdict asks of its candidates."""
        roles, rules = Roles.of(self.case.studies["a"]), self.verdict.rules
        of_candidates = [c for c in self.verdict.criteria if c.arm in roles.candidates]
        return [c for c in of_candidates if c.name in rules.criteria(roles, c.arm, c.stage)]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in the order in which they are shown."""
        return [chapter.rates for chapter in self.chapters]


def drifts(moments: Moments) -> list[Drift]:
    """First against last block of every arm, at initialisation and after training."""
    mean = names.ACTIVATION_MEAN.rstrip("/")
    found = []
    for arm, of_arm in moments.items():
        for when, measured in of_arm.items():
            if drift := measured["drift"]:
                means = [[block[mean] for block in blocks.values()] for blocks in measured["seeds"].values() if blocks]
                first, last = (median(of_seed[which] for of_seed in means) for which in (0, -1))
                slope = drift["mean_slope"]
                interval = tuple(slope["interval"]) if slope["interval"] else None
                found.append(Drift(arm, when, slope["n"], first, last, slope["estimate"], interval, drift["mean"]))
    return found


def chapter(ran: Ran, decisions: Sequence[Decision] = ()) -> Chapter:
    """Count, compare and draw a study; of one without ``decisions`` it says which arm did best.

    Raises:
        DecisionError: its control was not run.
    """
    study = ran.study
    verdict = decide(
        Roles.of(study), Stage("a", tuple(ran.trials), same_settings=study.same_settings), rules=Rules.of(study)
    )
    arms = [summary for arm in study.arms for summary in verdict.arms if summary.arm == arm]
    table = differences(study, [summary.arm for summary in arms])
    return Chapter(
        ran=ran,
        arms=arms,
        changes={s.arm: _changes(s.arm, study.control, table) for s in arms},
        against={c.arm: c.p for c in verdict.criteria if c.name == "fewer_failures"},
        rates=failure_rates(arms, f"{study.name}-", about=f"{study.name}: "),
        finding="" if decisions else best_arms(verdict),
        left_out=[line for s in arms if (line := left_out(s))],
        decisions=decisions,
    )


def _changes(arm: str, control: str, table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    differing = {name: values[arm] for name, values in table.items() if values.get(arm) != values.get(control)}
    return [f"{name.rpartition('.')[2]}={value_text(value)}" for name, value in differing.items()]
