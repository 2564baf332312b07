"""Bootstrap interval of a median. Source: Efron, JASA 82 (1987) 171 (BCa)."""

import warnings

import numpy as np
import scipy
from numpy.typing import ArrayLike

from fnostab.errors import DecisionError
from fnostab.stats.interval import LEVEL, Interval


def median_interval(values: ArrayLike) -> Interval | None:
    """Bootstrap 95 % interval of the median of values (n,), by BCa or, if that is undefined, by percentiles.

    BCa's corrections are undefined with heavy ties, as in (1, 1, 1, 1, 2). Identical values give an interval of zero
    width. With fewer than about six values no interval within the range of the data reaches 95 %, so the coverage is
    lower.

    Returns:
        The interval; None for fewer than two values.

    Raises:
        DecisionError: a value is not finite.
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise DecisionError(f"expected finite values of shape (n,), got {sample.tolist()}")
    if sample.size < 2:
        return None
    if sample.min() == sample.max():
        return Interval(float(sample[0]), float(sample[0]))
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
            low, high = scipy.stats.bootstrap(
                (sample,), np.median, confidence_level=LEVEL, method=method, rng=np.random.default_rng(0)
            ).confidence_interval
        if np.isfinite([low, high]).all():
            break
    return Interval(float(low), float(high))
