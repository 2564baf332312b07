"""Content of the report on a chain of studies, independent of HTML or Markdown."""

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
from fnostab.report.content import OnCase, differences, failure_rates
from fnostab.report.pictures import Picture
from fnostab.report.remarks import best_arms, left_out

Moments = Mapping[str, Mapping[str, Mapping[str, Any]]]  # arm -> moment -> output of `fnostab activations`


@dataclass(frozen=True)
class Drift:
    """Mean output of an arm's first and last block, and whether the mean grows with depth.

    Attributes:
        arm: name of the arm.
        when: "initialisation" or "after training".
        seeds: number of seeds.
        first_mean: mean output of the first block, median over seeds.
        last_mean: mean output of the last block, median over seeds.
        slope: change of the mean from one block to the next.
        interval: 95 % interval of the slope; None with one seed.
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
    """Verdict within the chain, or the finding of a final study.

    Attributes:
        headline: headline of the verdict.
        reason: reason for the verdict.
        next_step: recommended next step; empty if the chain has already taken it.
        run_id: id of the verdict's run.
        page: URL of the run.
    """

    headline: str
    reason: str
    next_step: str
    run_id: str
    page: str


@dataclass(frozen=True)
class Ran:
    """Study of the chain with its trials.

    Attributes:
        title: title in the report.
        why: reason for running it.
        study: specification of the study.
        trials: its trials.
        page: URL of the study in the tracking store.
    """

    title: str
    why: str
    study: StudySpec
    trials: Sequence[TrialRow]
    page: str


@dataclass(frozen=True)
class Chapter:
    """Content of the report on one study of the chain.

    Attributes:
        ran: the study and its trials.
        arms: summaries of the arms.
        changes: for each arm, the settings that differ from the control, as "name=value".
        against: for each arm, the p-value of `fewer_failures` against the control; None if not tested.
        rates: picture of the failure rates.
        finding: result in one sentence; empty for a study with decisions.
        left_out: a line for each arm with excluded trials.
        decisions: verdicts based on the study.
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
    """Content of the report on a chain of studies.

    Attributes:
        case: the last verdict on the stages.
        chapters: studies in the order in which they were run.
        drifts: drift of the activations of each arm.
        next_step: next step after the last study.
        commands: commands that were run.
        verdict_page: URL of the verdict's run.
        store: URL of the tracking store, without credentials.
        made_at: time of the report.
        version: version of fnostab.
    """

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
        """Criteria that the verdict applies to its candidates."""
        roles, rules = Roles.of(self.case.studies["a"]), self.verdict.rules
        of_candidates = [c for c in self.verdict.criteria if c.arm in roles.candidates]
        return [c for c in of_candidates if c.name in rules.criteria(roles, c.arm, c.stage)]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures in the order of the report."""
        return [chapter.rates for chapter in self.chapters]


def drifts(moments: Moments) -> list[Drift]:
    """Compare the first and last block of every arm, at initialisation and after training."""
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
    """Summarise, compare and draw the arms of a study; without ``decisions`` also name the best arms.

    Raises:
        DecisionError: the control was not run.
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
