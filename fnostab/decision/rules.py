"""Roles of arms, and the numbers on which a decision is based."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fnostab.errors import DecisionError
from fnostab.record.trial import Measure
from fnostab.stats.design import LEAST_TRIALS

ARCHITECTURE_A = ("fewer_failures", "better_loss", "no_nonfinite")
ARCHITECTURE_B = ("fewer_failures", "no_nonfinite")
CLIPPING = ("fewer_failures", "loss_within_margin")
SHRINKS = 4  # factor by which alpha shrinks at each unplanned look


@dataclass(frozen=True)
class Roles:
    """Roles of the arms; a candidate that the study lacks is None.

    Raises:
        DecisionError: an arm has two roles.
    """

    control: str
    architecture: str | None = None
    clipping: str | None = None

    def __post_init__(self) -> None:
        parts = (self.control, *self.candidates)
        if len(set(parts)) < len(parts):
            raise DecisionError(f"roles: {', '.join(parts)}: each part needs an arm of its own")

    @classmethod
    def of(cls, study: Any) -> "Roles":
        """Read the roles from an object with the attributes ``control`` and ``roles`` of a `StudySpec`."""
        return cls(study.control, study.roles.get("architecture"), study.roles.get("clipping"))

    @property
    def candidates(self) -> tuple[str, ...]:
        """Arms that a verdict can choose."""
        return tuple(arm for arm in (self.architecture, self.clipping) if arm is not None)

    def criteria(self, arm: str, stage: str) -> tuple[str, ...]:
        """Criteria that a candidate must meet in a stage."""
        if arm == self.clipping:
            return CLIPPING
        return ARCHITECTURE_A if stage == "a" else ARCHITECTURE_B


@dataclass(frozen=True)
class Rules:
    """Numbers on which a decision is based.

    Attributes:
        alpha: one-sided level of every family of tests at the first look.
        margin: non-inferiority margin of the metric: relative if lower is better and all values are positive, else
            in its units; None if the study sets none.
        smallest_effect: smallest relevant reduction of the failure rate.
        free_lengths: whether arms may run different numbers of steps.
        look: number of this look: 1 plus the number of verdicts recorded on fewer seeds.
        looks_planned: whether alpha is already that of one of several planned looks, and does not shrink.
        failure_judged: whether trials were judged for failure at all.
        least_trials: smallest number of training outcomes, of control and of an arm, for a test.
        follow_up_criteria: criteria for a candidate in Stage B, in addition to those of its role.
        grad_bound: largest ratio of p99 to median gradient norm in the last half of a run that counts as bounded.
    """

    alpha: float = 0.05
    metric: str = "loss"
    higher_is_better: bool = False
    margin: float | None = 0.1
    measures: Mapping[str, Measure] = field(default_factory=dict)
    smallest_effect: float = 0.2
    free_lengths: bool = False
    look: int = 1
    looks_planned: bool = False
    failure_judged: bool = True
    least_trials: int = LEAST_TRIALS
    follow_up_criteria: tuple[str, ...] = ()
    grad_bound: float = 10.0

    @classmethod
    def of(cls, study: Any, *, look: int | None = None, looks_planned: bool | None = None) -> "Rules":
        """Read the rules from an object with the attributes of a `StudySpec`.

        Looks are planned if the study has ``looks`` (seeds at each look), or a table has ``looks_planned``.
        """
        known_look = getattr(study, "look", 1)
        known_plan = getattr(study, "looks_planned", False) or bool(getattr(study, "looks", ()))
        return cls(
            alpha=study.alpha,
            metric="loss" if "loss" in study.metric.name else study.metric.name,
            higher_is_better=study.metric.higher_is_better,
            margin=study.margin,
            measures=dict(study.measures),
            smallest_effect=study.smallest_effect,
            free_lengths=study.lengths == "free",
            follow_up_criteria=tuple(getattr(study, "follow_up_criteria", ())),
            look=known_look if look is None else look,
            failure_judged=getattr(study, "failure_judged", True),
            looks_planned=known_plan if looks_planned is None else looks_planned,
        )

    def criteria(self, roles: Roles, arm: str, stage: str) -> tuple[str, ...]:
        """Criteria that a candidate must meet in a stage: those of its role and, in Stage B, those of the study."""
        return (*roles.criteria(arm, stage), *(self.follow_up_criteria if stage == "b" else ()))

    @property
    def better(self) -> str:
        """Direction of the metric, as one word."""
        return "higher" if self.higher_is_better else "lower"

    @property
    def level(self) -> float:
        """Alpha of this look."""
        return self.alpha if self.looks_planned else self.alpha * SHRINKS ** (1 - self.look)

    @property
    def next_level(self) -> float:
        """Alpha of the next look."""
        return self.alpha if self.looks_planned else self.level / SHRINKS
