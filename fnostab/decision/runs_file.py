"""Mapping of existing runs to trials, as `decide --runs FILE.yaml` reads it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from fnostab.record.outcomes import FAILURES, Outcome
from fnostab.record.settings import Frozen
from fnostab.record.trial import Measure

METRICS = "metrics."  # prefix of values with a history in MLflow


class Failed(Frozen):
    """Rule for failed runs: a run failed if any of these conditions holds.

    Attributes:
        nonfinite: names of values that must be finite.
        above: bounds by name; a run failed if a value is above its bound or NaN. True and False are 1 and 0.
        below: bounds by name; a run failed if a value is below its bound or NaN.
    """

    nonfinite: str | tuple[str, ...] = ()
    above: Mapping[str, float] = {}
    below: Mapping[str, float] = {}

    @field_validator("above", "below", mode="before")
    @classmethod
    def _true_is_no_bound(cls, bounds: Any) -> Any:
        """Refuse the bound true, above which no flag lies, so that nothing would fail."""
        for name, bound in bounds.items() if isinstance(bounds, Mapping) else ():
            if isinstance(bound, bool):
                raise ValueError(f"{name}: {bound} is not a number; if true means failed, write above: {{{name}: 0}}")
        return bounds

    @property
    def nonfinite_names(self) -> tuple[str, ...]:
        """``nonfinite`` as a tuple."""
        return (self.nonfinite,) if isinstance(self.nonfinite, str) else self.nonfinite


class RunsFile(Frozen):
    """Mapping of runs to trials, read by ``fnostab decide --runs FILE.yaml``."""

    table: str | None = None  # CSV file; without it, MLflow
    experiments: str | tuple[str, ...] = ()  # of MLflow
    control: Annotated[str, AfterValidator(lambda name: " ".join(name.split()))]  # as the names of arms are read
    arm: str
    seed: str
    metric: str
    higher_is_better: bool = False
    steps: str | None = None  # name of the number of scheduled steps
    failed: Failed | None = None
    outcome: Mapping[str, Mapping[str, Outcome]] = {}  # outcomes by name of a value, and by its words
    excluded: Mapping[str, str | tuple[str, ...]] = {}
    measures: Mapping[str, Measure] = {}
    margin: Annotated[float, Field(ge=0)] | None = None
    smallest_effect: Annotated[float, Field(gt=0, lt=1)] = 0.2
    lengths: Literal["equal", "free"] = "equal"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @property
    def history(self) -> str | None:
        """Name of the metric with a history in MLflow; None for a table column."""
        return self.metric.removeprefix(METRICS) if self.table is None and self.metric.startswith(METRICS) else None

    def excluded_values(self, name: str) -> tuple[str, ...]:
        """Values of ``excluded`` under a name, as a tuple."""
        wanted = self.excluded[name]
        return (wanted,) if isinstance(wanted, str) else wanted

    @property
    def judges_failure(self) -> bool:
        """Whether it says of any run that it failed."""
        return self.failed is not None or any(o in FAILURES for words in self.outcome.values() for o in words.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all values that the mapping uses."""
        return tuple(dict.fromkeys([self.arm, self.seed, *self.numbers, *self.outcome, *self.excluded]))

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers that decide."""
        failed = self.failed or Failed()
        given = [self.metric, *([self.steps] if self.steps else []), *self.measures]
        return (*given, *failed.nonfinite_names, *failed.above, *failed.below)
