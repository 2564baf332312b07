"""Failure rate as a pair of counts."""

from dataclasses import dataclass

from fnostab.stats.checks import check_counts


@dataclass(frozen=True, order=True)
class Rate:
    """Failure rate: ``failed`` out of ``n`` trials.

    Raises:
        DecisionError: failures below 0 or above the number of trials.
    """

    failed: int
    n: int

    def __post_init__(self) -> None:
        check_counts(self.failed, self.n)

    @property
    def value(self) -> float:
        """Share of trials that failed; 0 without trials."""
        return self.failed / self.n if self.n else 0.0

    def __str__(self) -> str:
        return f"{self.failed}/{self.n}"
