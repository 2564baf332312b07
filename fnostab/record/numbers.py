"""Convert a program's numbers, Python's or an array library's, for a journal. Uses only the standard library."""

import math
import operator
from typing import SupportsFloat, SupportsIndex

from fnostab.errors import JournalError
from fnostab.record.lines import LARGEST_STEP

LARGEST = 1e300  # of a metric: sums and differences of larger ones may overflow


def unbounded(value: float) -> float:
    """Replace a number beyond `LARGEST` by infinity, in place of which MLflow stores the largest float."""
    return math.copysign(math.inf, value) if abs(value) > LARGEST else value


def whole(what: str, step: SupportsIndex) -> int:
    """Convert a step or number of steps to an integer; errors name it as an argument of ``what``.

    Raises:
        JournalError: it is not an integer from 0 to 2**63 - 1.
    """
    try:
        i = int(operator.index(step))  # a bool has an index too
    except TypeError:
        raise JournalError(f"{what}({_brief(step)}): expected a whole number of steps") from None
    if not 0 <= i <= LARGEST_STEP:
        raise JournalError(f"{what}({i}): expected a step from 0 to 2**63 - 1")
    return i


def number(name: str, value: SupportsFloat) -> float:
    """Convert a Python number or a scalar of an array library to a float.

    Raises:
        JournalError: the value is text, complex, or not a single number.
    """
    if type(value) is float:
        return value
    if not isinstance(value, int | float):
        item = getattr(value, "item", None)
        try:
            masked = getattr(value, "mask", False)  # of NumPy, whose masked scalar has an item; a method of pandas
            value = item() if callable(item) and (callable(masked) or not masked) else value
        except (TypeError, ValueError, RuntimeError):
            raise JournalError(f"{name}: expected one number, got {_brief(value)}") from None
    if not isinstance(value, str | bytes | complex) and hasattr(value, "__float__"):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            pass
    raise JournalError(f"{name}: expected a number, got {_brief(value)}")


def _brief(value: object) -> str:
    return f"{' '.join(repr(value).split())[:80]} ({type(value).__name__})"
