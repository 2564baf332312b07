"""Imports without garbage collection."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["imports_that_stay"]


@contextmanager
def imports_that_stay() -> Iterator[None]:
    """Import within this, at the start of a process, what it needs until its end.

    Importing torch and Lightning makes a million objects, all of which stay. To look among them for garbage, a
    thousand times, takes a quarter of the time of the import, and every full collection later on goes through them
    again. Here it waits until they are there, and they are left out of it from then on.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
