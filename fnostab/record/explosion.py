"""Judge whether a loss has exploded, by the rules' thresholds or by the trial's own progress.

Without thresholds the rule works for a loss of any sign and scale: adding a constant to every loss changes nothing.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fnostab.record.outcome_rules import OutcomeRules, Validation

SHARE_OF_STEPS = 0.1  # window over which the level of the training loss is taken
LEAST_STEPS = 8  # the same for a short training
WITHOUT_TRAINING = 10  # multiple of its progress at which a loss has exploded, without a training loss
AT_THE_END = 10  # multiple of the distance from its best to its median at which a training loss has exploded
LAST_STEPS = 2  # of a training, which must have such losses; one suffices where it stopped before its scheduled end


def exploded_at(
    validations: Sequence[Validation], baseline: float | None, rules: OutcomeRules, training: Sequence[float] = ()
) -> list[bool]:
    """Whether the loss at each validation is far above where the trial began, or above its own best so far.

    Measured in shares of the baseline and multiples of the best where the rules give them, else by the trial's own
    progress, which does not change if a constant is added to every loss (see `_has_lost_all`).

    Args:
        validations: in chronological order.
        baseline: validation loss of an untrained output; None if unknown.
        rules: rules of failures.
        training: training losses by step, (steps,); NaN where none was recorded.
    """
    best: list[Validation] = []
    for v in validations:
        best.append(v if not best or _loss_of(v) < _loss_of(best[-1]) else best[-1])
    if rules.exploded_vs_best is None and rules.exploded_vs_baseline is None:
        return _has_lost_all(validations, best, baseline, np.asarray(training, dtype=float))
    limit = math.inf
    if baseline is not None and rules.exploded_vs_baseline is not None:
        limit = rules.exploded_vs_baseline * baseline
    factor = rules.exploded_vs_best
    exploded = []
    for v, so_far in zip(validations, best, strict=True):
        of_best = math.inf if factor is None or not 0 <= _loss_of(so_far) < math.inf else factor * so_far.loss
        exploded.append(not v.loss <= min(limit, of_best))
    return exploded


def explosion_at_end(
    validations: Sequence[Validation], training: Sequence[float], *, stopped_short: bool = False
) -> tuple[int, int] | None:
    """Find an explosion of the training loss in its last steps, which no validation followed.

    A training that explodes often ends, or is ended, before its next validation. Its last losses, two at least, then
    are the highest of all, lie above the start by more than the best lies below it, and above the median by
    `AT_THE_END` times as much as the best lies below that. A single one may be chance where a training ends as
    scheduled, but is the likely reason why one stops before.

    Args:
        validations: a later one whose loss is not as high as that ends the explosion.
        training: training losses by step, (steps,); NaN where none was recorded.
        stopped_short: whether the training ended well before its last scheduled step.

    Returns:
        (first step of the explosion, last step before it); None without one.
    """
    losses = np.asarray(training, dtype=float)
    finite = losses[np.isfinite(losses)]
    if not finite.size:
        return None
    start, least, usual = finite[0], finite.min(), np.median(finite)
    limit = max(2 * start - least, usual + AT_THE_END * (usual - least))
    calm = max([*np.flatnonzero(losses <= limit)[-1:], *(v.step for v in validations if v.loss <= limit)])
    risen = calm + 1 + np.flatnonzero(losses[calm + 1 :] > limit)
    if risen.size < (1 if stopped_short else LAST_STEPS) or np.nanargmax(losses) < risen[0]:
        return None
    return int(risen[0]), int(calm)


def _has_lost_all(
    validations: Sequence[Validation], best: Sequence[Validation], baseline: float | None, training: NDArray[np.float64]
) -> list[bool]:
    """Whether the trial, at each validation, has lost all its progress and as much again.

    The loss then lies as far above the start as the best so far lies below it. The start is the first validation, or
    the baseline as soon as something better is reached. If the training loss varied more than that distance over its
    first tenth, its range replaces the distance. Without a training loss progress can't be told from noise, and ten
    times the distance is needed. A validation loss that rises while the training loss still falls is overfitting, and
    does not count.
    """
    early = _early_range(training)
    first = next((v.loss for v in validations if math.isfinite(v.loss)), math.inf)
    exploded = []
    for v, so_far in zip(validations, best, strict=True):
        least = _loss_of(so_far)
        start = first if baseline is None or least > baseline else baseline
        distance = max(start - least, early) if early is not None else WITHOUT_TRAINING * (start - least)
        risen = distance > 0 and v.loss > start + distance
        exploded.append(not math.isfinite(v.loss) or (risen and not _still_learns(training, v.step, so_far.step)))
    return exploded


def _loss_of(validation: Validation) -> float:
    """Loss of a validation; infinity where it is not finite."""
    return validation.loss if math.isfinite(validation.loss) else math.inf


def _early_range(training: NDArray[np.float64]) -> float | None:
    """Range of the training loss over its first tenth, from the 10 % to the 90 % quantile; None if unknown."""
    early = training[: _tenth(training)]
    early = early[np.isfinite(early)]
    return float(np.diff(np.quantile(early, [0.1, 0.9]))[0]) if early.size > 1 else None


def _still_learns(training: NDArray[np.float64], step: int, best_step: int) -> bool:
    """Whether the training loss before a step is lower than where the validation loss was best."""
    width = _tenth(training)
    now, then = (training[max(s + 1 - width, 0) : s + 1] for s in (step, best_step))
    now, then = now[~np.isnan(now)], then[~np.isnan(then)]
    return bool(now.size and then.size and step > best_step and np.median(now) < np.median(then))


def _tenth(training: NDArray[np.float64]) -> int:
    return max(math.ceil(len(training) * SHARE_OF_STEPS), LEAST_STEPS)
