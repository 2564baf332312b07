"""Sinks of a monitor: the journal of the study's trial by default, and the last step that each sink holds."""

import importlib
import os
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from fnostab.record.journal import Sink

__all__ = ["JOURNAL_VARIABLE", "last_steps", "session_sink"]

JOURNAL_VARIABLE = "FNOSTAB_JOURNAL"


def session_sink() -> Sink | None:
    """Open the journal of the trial that this process was started for; None outside a study."""
    if JOURNAL_VARIABLE not in os.environ:
        return None
    recorder: Any = importlib.import_module("fnostab.record.recorder")  # only inside a study
    sink: Sink | None = recorder.session_sink()
    return sink


class _LastSteps:
    """The last step that each sink holds, for sinks that can be hashed and weakly referenced."""

    def __init__(self) -> None:
        self._steps: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def of(self, sink: Sink | None) -> int:
        """Last step of a sink; -1 if it holds none."""
        try:
            return self._steps.get(sink, -1)
        except TypeError:
            return -1

    def note(self, sink: Sink, step: int) -> None:
        """Note a step that a sink holds now."""
        with suppress(TypeError):
            self._steps[sink] = max(step, self._steps.get(sink, -1))


last_steps = _LastSteps()
