"""Every error that fnostab raises on purpose.

    FnostabError
    ├── ConfigError      a setting is unknown, of the wrong type, or impossible beside another
    │   └── UnknownSettingError   no setting has that name
    ├── DataError        a data set, one of its files or a cache is missing, corrupt or of the wrong shape
    ├── ModelError       a network can't be found or built, or its input or output has the wrong shape
    ├── JournalError     a trial's journal is damaged, locked by another process, or can't be written
    ├── CheckpointError  a training's state or a black box is damaged, or does not fit the network
    ├── TrackingError    the tracking server or an experiment, study or run on it can't be reached
    │   └── SlowStoreError   the server is there, but has not answered in time
    ├── DecisionError    a table of trials can't be judged
    └── LaunchError      a study or trial can't be started

A message is one line: the offending value, what is accepted, and what to do next. The command line
prints it after ``error:`` and exits with status 2; it never shows a traceback for one of these.
"""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DecisionError",
    "FnostabError",
    "JournalError",
    "LaunchError",
    "ModelError",
    "SlowStoreError",
    "TrackingError",
    "UnknownSettingError",
    "one_line",
    "os_errors_as",
]

REASON_CHARACTERS = 500
TRACEBACK = "Traceback (most recent call last)"


class FnostabError(Exception):
    """Base class of all errors that a user can fix."""


class ConfigError(FnostabError):
    """A setting is unknown, of the wrong type, or impossible beside another.

    Attributes:
        setting: dotted name of the setting or of its group; empty if the error concerns none.
    """

    def __init__(self, message: str, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class UnknownSettingError(ConfigError):
    """No setting has that name."""


class DataError(FnostabError):
    """A data set, one of its files or a cache is missing, corrupt or of the wrong shape."""


class ModelError(FnostabError):
    """A network can't be found or built, or its input or output has the wrong shape."""


class JournalError(FnostabError):
    """A trial's journal is damaged, locked by another process, or can't be written."""


class CheckpointError(FnostabError):
    """A training's state or a black box is damaged, can't be written, or does not fit the network."""


class TrackingError(FnostabError):
    """The tracking server, or an experiment, study or run on it, can't be reached."""


class SlowStoreError(TrackingError):
    """The tracking server is there, but has not answered in time."""


class DecisionError(FnostabError):
    """A table of trials can't be judged."""


class LaunchError(FnostabError):
    """A study or a trial can't be started."""


@contextmanager
def os_errors_as(kind: type[FnostabError], what: str, hint: str = "") -> Iterator[None]:
    """Convert an OSError into an error of ``kind`` with the message "WHAT: the system's reason; HINT"."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}{f'; {hint}' if hint else ''}") from error


def one_line(exception: BaseException) -> str:
    """Write the type and message of an exception as one line of at most `REASON_CHARACTERS`."""
    if isinstance(exception.__context__, KeyboardInterrupt) and isinstance(exception, SystemExit):
        exception = exception.__context__  # Lightning turns Ctrl-C into SystemExit
    said = str(exception).strip()
    if TRACEBACK in said:  # the message quotes a traceback of another process
        said = said.splitlines()[-1]
    text = f"{type(exception).__name__}: {said}" if said else type(exception).__name__
    return " ".join(text.split())[:REASON_CHARACTERS]
