"""Rules of failures, as data: a task or a study file gives them.

The record of a trial holds them, and a trial that has ended can be judged again by others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fnostab.record.settings import Frozen

__all__ = ["Bound", "OutcomeRules", "Validation"]


class Bound(Frozen):
    """A bound on a value: it holds above or below a number, at so many validations in a row."""

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
        """Whether the bound holds for a value: True for NaN, which is no success; False for None, not measured."""
        if value is None or math.isnan(value):
            return value is not None
        return value > self.above if self.above is not None else value < (self.below or 0.0)

    def holds_at(self, values: Sequence[float | None]) -> list[bool]:
        """Whether the bound holds at each value, and held at as many before it as ``validations`` asks for."""
        held = [self.holds(value) for value in values]
        n = self.validations
        return [i + 1 >= n and all(held[i + 1 - n : i + 1]) for i in range(len(held))]

    def turned(self) -> "Bound":
        """The same bound for the negative of the value."""
        above, below = (None if edge is None else -edge for edge in (self.below, self.above))
        return self.model_copy(update={"above": above, "below": below})


class OutcomeRules(Frozen):
    """Rules of failures, as data.

    They are about a loss, of which lower is better. For a metric of which higher is better, `judge` is given its
    negative, and `turned` rules.
    """

    baseline: float | None = None  # what an output that has learnt nothing gets
    of: Literal["best", "last"] = "best"  # which validation is held against it: that of the study's metric
    failed: Bound | None = None  # of the metric, at the last validation: stagnated
    collapsed: dict[str, Bound] = Field(default={})  # measures of the output: any of them
    stagnated: dict[str, Bound] = Field(default={})  # measures of what it has learnt, at the last validation: any
    meaningless: dict[str, Bound] = Field(default={})  # measures at which a good loss proves nothing
    # Shares and multiples, for losses that are above zero; without them the trial's own progress is the scale
    stagnated_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_best: Annotated[float, Field(gt=0)] | None = None

    def turned(self) -> "OutcomeRules":
        """The same rules for the negative of a metric of which higher is better.

        Shares and multiples are left out: they mean nothing for losses below zero.
        """
        return OutcomeRules(
            baseline=None if self.baseline is None else -self.baseline,
            of=self.of,
            failed=None if self.failed is None else self.failed.turned(),
            collapsed=self.collapsed,
            stagnated=self.stagnated,
            meaningless=self.meaningless,
        )


@dataclass(frozen=True)
class Validation:
    """One validation of a trial.

    Attributes:
        step: 0-based optimiser step after which it took place.
        loss: the monitored validation loss; NaN and Inf are accepted.
        measures: other measures of the output, by metric name.
    """

    step: int
    loss: float
    measures: Mapping[str, float] = field(default_factory=dict)
