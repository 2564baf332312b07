"""Classify the exception that ended a training run."""

from fnostab.record.outcomes import Outcome
from fnostab.record.recorder import is_out_of_memory


def outcome_of(exception: BaseException) -> Outcome:
    """Outcome of a training run ended by an exception (or its cause): ``oom``, ``killed`` or ``infra_error``."""
    if isinstance(exception, KeyboardInterrupt | SystemExit):
        return Outcome.KILLED
    return Outcome.OOM if is_out_of_memory(exception) else Outcome.INFRA_ERROR


def is_anomaly(exception: BaseException) -> bool:
    """Whether torch's `detect_anomaly` raised the exception for a NaN in the backward pass."""
    return isinstance(exception, RuntimeError) and "returned nan values" in str(exception)
