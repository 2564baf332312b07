"""One check and what it found."""

import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from fnostab.errors import FnostabError

__all__ = ["Check", "Finding", "State", "look"]


class State(StrEnum):
    """State of a thing that was checked."""

    OK = "ok"
    WARNING = "warning"  # a study runs, but not as well as it could
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """Result of a check in one line, with the remedy if something is wrong."""

    state: State
    text: str


@dataclass(frozen=True)
class Check:
    """Something to look at.

    Attributes:
        examine: looks. What it raises of this program's errors is a failure found.
        limit_s: after which it counts as hanging.
        if_hanging: what is then to be said.
        decides: whether, if this fails, the checks that follow can find nothing more.
    """

    name: str
    examine: Callable[[], Finding]
    limit_s: float
    if_hanging: str
    decides: bool = False


def look(checks: Iterable[Check]) -> Iterator[tuple[str, Finding]]:
    """Do one check after the other, each within its limit; yields its name with what it found."""
    for check in checks:
        finding = _within(check)
        yield check.name, finding
        if check.decides and finding.state is State.FAILED:
            return


def _within(check: Check) -> Finding:
    found: list[Finding] = []
    hanging = Finding(State.FAILED, f"no answer within {check.limit_s:g} s; {check.if_hanging}")

    def examine() -> None:
        try:
            found.append(check.examine())
        except FnostabError as error:
            found.append(Finding(State.FAILED, str(error)))
        except subprocess.TimeoutExpired:
            found.append(hanging)
        except Exception as error:  # a check that breaks is no reason to leave out the others
            found.append(Finding(State.FAILED, f"{type(error).__name__}: {error}".splitlines()[0]))

    # Not one of a pool: Python would wait for it at its end
    thread = threading.Thread(target=examine, name=f"fnostab-doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(check.limit_s)
    return found[0] if found else hanging
