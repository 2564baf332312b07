"""Run checks, each within a time limit, and report their findings."""

import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from fnostab.errors import FnostabError


class State(StrEnum):
    """Severity of a finding."""

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
    """Check that `look` runs.

    Attributes:
        examine: function that does the check; an exception counts as a failed check.
        limit_s: time after which the check counts as hanging.
        if_hanging: what to do in that case.
        decides: whether the checks that follow are left out if this one fails.
    """

    name: str
    examine: Callable[[], Finding]
    limit_s: float
    if_hanging: str
    decides: bool = False


def look(checks: Iterable[Check]) -> Iterator[tuple[str, Finding]]:
    """Run checks one after the other, each within its time limit; yield each one's name and finding."""
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
        except Exception as error:  # an error in one check must not stop the others
            found.append(Finding(State.FAILED, f"{type(error).__name__}: {error}".splitlines()[0]))

    # Not a thread of a pool, for which Python would wait at exit
    thread = threading.Thread(target=examine, name=f"fnostab-doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(check.limit_s)
    return found[0] if found else hanging
