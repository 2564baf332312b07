"""Classify the exception that ended a training run."""

import torch

from fnostab.record.outcomes import Outcome

__all__ = ["is_anomaly", "outcome_of"]

ALLOCATION_FAILED = ("can't allocate memory", "ALLOC_FAILED")  # torch on a CPU; cuFFT, cuBLAS and the like


def outcome_of(exception: BaseException) -> Outcome:
    """Outcome of a training run ended by an exception (or its cause): ``oom``, ``killed`` or ``infra_error``."""
    if isinstance(exception, KeyboardInterrupt | SystemExit):
        return Outcome.KILLED
    link: BaseException | None = exception
    while link is not None:
        if _is_out_of_memory(link):
            return Outcome.OOM
        link = link.__cause__
    return Outcome.INFRA_ERROR


def is_anomaly(exception: BaseException) -> bool:
    """Whether torch's `detect_anomaly` raised the exception for a NaN in the backward pass."""
    return isinstance(exception, RuntimeError) and "returned nan values" in str(exception)


def _is_out_of_memory(exception: BaseException) -> bool:
    if isinstance(exception, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(exception, RuntimeError) and any(text in str(exception) for text in ALLOCATION_FAILED)
