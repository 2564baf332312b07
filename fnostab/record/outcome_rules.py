"""Rules that define failures, as data from a task or a study file.

They are stored with the trial; an ended trial can be judged again by other rules.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fnostab.record.settings import Frozen


class Bound(Frozen):
    """Bound on a value, which holds if the value is above or below a number at several validations in a row."""

    above: float | None = None
    below: float | None = None
    validations: Annotated[int, Field(gt=0)] = 1
    ends_early: bool = False  # whether to end the trial as soon as it holds, after a start-up time

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("expected one of above and below, as in {below: 0.1}")
        return self

    def holds(self, value: float | None) -> bool:
        """Whether the bound holds for a value: True for NaN, False for None (not measured)."""
        if value is None or math.isnan(value):
            return value is not None
        return value > self.above if self.above is not None else value < (self.below or 0.0)

    def holds_at(self, values: Sequence[float | None]) -> list[bool]:
        """Whether the bound holds at each value and at the preceding ones, ``validations`` in a row."""
        held = [self.holds(value) for value in values]
        n = self.validations
        return [i + 1 >= n and all(held[i + 1 - n : i + 1]) for i in range(len(held))]

    def turned(self) -> "Bound":
        """Return the same bound for the negated value."""
        above, below = (None if edge is None else -edge for edge in (self.below, self.above))
        return self.model_copy(update={"above": above, "below": below})


class OutcomeRules(Frozen):
    """Rules that define failures, as data.

    They apply to a loss, where lower is better. For a metric where higher is better, `judge` receives the negated
    metric and `turned` rules.
    """

    baseline: float | None = None  # loss of an output that has learnt nothing
    of: Literal["best", "last"] = "best"  # validation compared with the baseline, as in the study's metric
    failed: Bound | None = None  # bound on the metric at the last validation, for stagnated
    collapsed: dict[str, Bound] = Field(default={})  # on measures of the output; any of them suffices
    stagnated: dict[str, Bound] = Field(default={})  # on measures of learning at the last validation; any suffices
    meaningless: dict[str, Bound] = Field(default={})  # on measures that make a good loss meaningless
    # Shares and multiples for positive losses; without them the trial's own progress is the scale
    stagnated_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_best: Annotated[float, Field(gt=0)] | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures, other than the metric, that the rules use."""
        return (*self.collapsed, *self.stagnated, *self.meaningless)

    def turned(self) -> "OutcomeRules":
        """Return the same rules for a negated metric where higher is better.

        Shares and multiples are left out, since they are meaningless for negative losses.
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
        loss: monitored validation loss; may be NaN or Inf.
        measures: other measures of the output, by metric name.
    """

    step: int
    loss: float
    measures: Mapping[str, float] = field(default_factory=dict)
