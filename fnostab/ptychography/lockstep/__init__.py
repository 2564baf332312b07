"""Train several seeds of one arm in lockstep in one process, with batched forward and backward passes.

A step of a small network is mostly launch overhead of many small operations. In lockstep the weights of K networks
are stacked, and each pass runs once for all of them. Everything else stays separate: each training runs in its own
thread with its own optimiser, clipping, monitor and journal, and ends on its own.

A training requests a pass and waits until all others have requested one too, or have left. If all request the same
kind of pass they are computed together, otherwise one by one. Each training therefore computes the same numbers as
alone, up to rounding, and does not depend on the fate of the others.

Only `preparation` and `task` import this package, each in one line, so it can easily be removed.
"""

from fnostab.ptychography.lockstep.trainings import insist_on_lockstep, train_in_lockstep

__all__ = ["insist_on_lockstep", "train_in_lockstep"]
