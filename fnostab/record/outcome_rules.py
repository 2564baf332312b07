"""Rules that say which validations look like a failure, as data: a task or a study file gives them.

The record of a trial holds them, and a trial that has ended can be judged again by others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import Field, model_validator

from fnostab.record.settings import Frozen

__all__ = ["Bound", "OutcomeRules", "Validation"]


class Bound(Frozen):
    """Holds for values on one side of a number, at so many validations running."""

    above: float | None = None
    below: float | None = None
    validations: Annotated[int, Field(gt=0)] = 1
    ends_early: bool = False  # whether a trial is ended as soon as it holds, once it had time to start

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("expected one of above and below, as in {below: 0.1}")
        return self

    def holds(self, value: float | None) -> bool:
        """Whether it holds for a value; not for one that was not measured. NaN is on no side."""
        if value is None:
            return False
        return value > self.above if self.above is not None else value < (self.below or 0.0)

    def holds_at(self, values: Sequence[float | None]) -> list[bool]:
        """The same for each of a sequence, with the validations before it that are asked for."""
        held = [self.holds(value) for value in values]
        n = self.validations
        return [i + 1 >= n and all(held[i + 1 - n : i + 1]) for i in range(len(held))]

    def turned(self) -> "Bound":
        """The same of a number whose sign is turned."""
        above, below = (None if edge is None else -edge for edge in (self.below, self.above))
        return self.model_copy(update={"above": above, "below": below})


class OutcomeRules(Frozen):
    """What counts as a failure, as data.

    Of a loss: lower is better. Where a higher metric is better, `judge` is given it with its sign turned,
    and these rules too (`turned`).
    """

    baseline: float | None = None  # what an output that has learnt nothing gets
    failed: Bound | None = None  # of the metric, at the last validation: stagnated
    collapsed: dict[str, Bound] = Field(default={})  # measures of the output: any of them
    meaningless: dict[str, Bound] = Field(default={})  # measures at which a good loss proves nothing
    # Shares and multiples, for losses that are above zero; without them the trial's own progress is the scale
    stagnated_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_best: Annotated[float, Field(gt=0)] | None = None

    def turned(self) -> "OutcomeRules":
        """The same rules for a metric that is higher the better it is, once its sign is turned.

        Shares and multiples are left out: they mean nothing of losses below zero.
        """
        return OutcomeRules(
            baseline=None if self.baseline is None else -self.baseline,
            failed=None if self.failed is None else self.failed.turned(),
            collapsed=self.collapsed,
            meaningless=self.meaningless,
        )


@dataclass(frozen=True)
class Validation:
    """One validation of a trial.

    Attributes:
        step: 0-based optimiser step after which it took place.
        loss: the monitored validation loss; NaN and Inf are accepted.
        measures: what else was measured of the output, by metric name.
    """

    step: int
    loss: float
    measures: Mapping[str, float] = field(default_factory=dict)
