"""Several trainings of one arm side by side in one process, with their networks computed as one.

A step of a small network is mostly overhead: many small operations, launched for each seed anew. Here the
weights of K networks are stacked, and each pass runs once for all of them. All else stays each training's
own: it runs in a thread, with its optimiser, clipping, monitor, journal and end.

A training asks for a pass and waits until every other one has asked too, or has left. Those that ask for the
same are computed together, as long as that is all of them; else each is computed alone. So what a training
does is the same as alone but for rounding, and what becomes of one changes no other.

Of the room only `preparation` and `process` know of this folder, by a line each: it can be taken out whole.
"""

from fnostab.ptychography.lockstep.trainings import insist_on_lockstep, train_in_lockstep

__all__ = ["insist_on_lockstep", "train_in_lockstep"]
