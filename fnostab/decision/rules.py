"""Who is compared with whom, by which numbers."""

from dataclasses import dataclass

from fnostab.errors import DecisionError
from fnostab.ptychography.settings import MonitorConfig

__all__ = ["ARCHITECTURE_A", "ARCHITECTURE_B", "CLIPPING", "Roles", "Rules"]

ARCHITECTURE_A = ("fewer_failures", "better_loss", "no_nonfinite")
ARCHITECTURE_B = ("fewer_failures", "no_nonfinite")
CLIPPING = ("fewer_failures", "loss_within_10pct")


@dataclass(frozen=True)
class Roles:
    """Which arms play which part. A candidate that a study does not have is None.

    Raises:
        DecisionError: one arm is given two parts.
    """

    control: str
    architecture: str | None = None
    clipping: str | None = None

    def __post_init__(self) -> None:
        parts = (self.control, *self.candidates)
        if len(set(parts)) < len(parts):
            raise DecisionError(f"roles: {', '.join(parts)}: each part needs an arm of its own")

    @property
    def candidates(self) -> tuple[str, ...]:
        """The arms that a verdict can choose."""
        return tuple(arm for arm in (self.architecture, self.clipping) if arm is not None)

    def criteria(self, arm: str, stage: str) -> tuple[str, ...]:
        """Criteria that a candidate must meet in a stage."""
        if arm == self.clipping:
            return CLIPPING
        return ARCHITECTURE_A if stage == "a" else ARCHITECTURE_B


@dataclass(frozen=True)
class Rules:
    """Numbers that a decision rests on.

    Attributes:
        alpha: of every test, one-sided.
        loss_margin: how many times control's loss still counts as no worse.
        higher_is_better: direction of the primary metric.
        least_trials: training outcomes of control and of an arm below which nothing is tested.
        least_quality: how far an arm's median amplitude SSIM may lie below control's.
        grad_bound: p99 over median of the gradient norm in the last half of a run.
        collapse_threshold: amplitude spread below which trials were called collapsed.
        pivot_reduction: a verdict that nothing helps is supported only if every candidate's
            failure reduction is below this with 95 % confidence.
    """

    alpha: float = 0.05
    loss_margin: float = 1.10
    higher_is_better: bool = False
    least_trials: int = 3
    least_quality: float = 0.02
    grad_bound: float = 10.0
    collapse_threshold: float = MonitorConfig().collapsed_spread
    pivot_reduction: float = 0.2
