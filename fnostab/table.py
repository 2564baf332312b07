"""The table that a decision is made from: one row a trial."""

from dataclasses import dataclass

from fnostab.outcomes import EXCLUDED, FAILURES, TRAINING_OUTCOMES, Outcome

__all__ = ["TrialRow"]


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study.

    Attributes:
        loss: the study's primary metric; None if the trial has none.
        failure_step: 0-based optimiser step of the failure, None if it did not fail.
        last_step: 0-based last step that was recorded, None if there is none.
        ssim_amp: amplitude SSIM on the validation object.
        grad_ratio: p99 over median of the gradient norm in the last half of the run.
        run_id: MLflow run, None if the row does not come from MLflow.
    """

    arm: str
    seed: int
    outcome: Outcome
    loss: float | None = None
    failure_step: int | None = None
    last_step: int | None = None
    ssim_amp: float | None = None
    grad_ratio: float | None = None
    run_id: str | None = None

    @property
    def counts(self) -> bool:
        """Whether it takes part in rates and medians."""
        return self.outcome in TRAINING_OUTCOMES

    @property
    def failed(self) -> bool:
        """Whether its training failed."""
        return self.outcome in FAILURES

    @property
    def excluded(self) -> bool:
        """Whether it ended without a training outcome."""
        return self.outcome in EXCLUDED
