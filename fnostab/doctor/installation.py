"""Check the versions of the libraries against those that are tested, and list the extras."""

import platform
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from fnostab.doctor.finding import Check, Finding, State

TESTED = {"torch": "2.13.0", "lightning": "2.6.6", "mlflow": "3.17.2"}  # as in constraints.txt
ONLY_FOR_TRAINING = ("torch", "lightning")
EXTRAS = {  # extra -> a module that comes with it, what it is for
    "auth": ("flask_wtf", "fnostab serve --auth"),
    "postgresql": ("psycopg", "records on PostgreSQL"),
}
LIMIT_S = 20.0
IF_HANGING = "check that the disk with Python's libraries responds"


def installation_checks() -> Iterator[Check]:
    """Checks of the installed libraries, without importing them."""
    yield Check("python", _python, LIMIT_S, IF_HANGING)
    for library in TESTED:
        yield Check(library, partial(_library, library), LIMIT_S, IF_HANGING)
    yield Check("extras", _extras, LIMIT_S, IF_HANGING)


def _python() -> Finding:
    return Finding(State.OK, platform.python_version())


def _library(name: str) -> Finding:
    tested = TESTED[name]
    try:
        found = version(name)
    except PackageNotFoundError:
        if name in ONLY_FOR_TRAINING:
            return Finding(
                State.OK, "not installed; the built-in study and StabilityMonitor need `pip install 'fnostab[torch]'`"
            )
        return Finding(State.FAILED, f"is not installed; `pip install '{name}=={tested}'`")
    if found.split(".")[:2] != tested.split(".")[:2]:
        return Finding(
            State.WARNING,
            f"{found}, but the tested version is {tested}; if something misbehaves, `pip install '{name}=={tested}'`",
        )
    return Finding(State.OK, found)


def _extras() -> Finding:
    missing = {name: use for name, (module, use) in EXTRAS.items() if not find_spec(module)}
    parts = [", ".join(name for name in EXTRAS if name not in missing) or "none"]
    parts += [f"without {name} (`pip install 'fnostab[{name}]'`, for {use})" for name, use in missing.items()]
    return Finding(State.OK, "; ".join(parts))
