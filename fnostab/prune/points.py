"""Thin the points of old trials in a store without losing a spike."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fnostab.figures.decimation import decimate
from fnostab.record import names
from fnostab.tracking import Store
from fnostab.tracking.repair.thinning import LongRun, long_runs

KEPT_AT_MOST = 3 * names.WINDOWS + 2  # smallest, largest and first gap of each window; first and last point


@dataclass(frozen=True)
class Thinning:
    """Result of thinning the trials of an experiment, done or only planned.

    Attributes:
        deleted: number of points deleted; a lower bound while it is only planned.
    """

    experiment: str
    runs: int = 0
    points: int = 0
    deleted: int = 0


def shape_of(steps: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Select the steps that keep a history's shape: the extremes of each of 300 windows, the first and the last step.

    Args:
        steps: increasing, shape (n,).
        values: shape (n,); of values that are not finite, the first one of each window is kept.

    Returns:
        The selected steps, increasing, shape (m,).
    """
    kept, _ = decimate(steps, values, columns=names.WINDOWS)
    return np.union1d(kept, steps[[0, -1]]).astype(np.int64)


def plan_thinning(store: Store, before_ms: int, experiment: str | None = None) -> tuple[list[LongRun], list[Thinning]]:
    """List the runs that ended before ``before_ms`` (Unix milliseconds) and can be thinned, with totals by experiment.

    Raises:
        TrackingError: the store is a server, or does not answer.
    """
    runs = long_runs(store, before_ms, KEPT_AT_MOST, experiment)
    planned: dict[str, Thinning] = {}
    for run in runs:
        so_far = planned.get(run.experiment, Thinning(run.experiment))
        points = sum(run.points.values())
        planned[run.experiment] = replace(
            so_far,
            runs=so_far.runs + 1,
            points=so_far.points + points,
            deleted=so_far.deleted + points - KEPT_AT_MOST * len(run.points),
        )
    return runs, list(planned.values())
