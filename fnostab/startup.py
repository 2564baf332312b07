"""Import modules without garbage collection."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_that_stay() -> Iterator[None]:
    """Pause garbage collection during imports at the start of a process, and exempt their objects from it afterwards.

    Importing torch and Lightning creates a million objects, all of which stay alive. A thousand collections during
    the import take a quarter of its time, and every full collection afterwards would traverse these objects again.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
