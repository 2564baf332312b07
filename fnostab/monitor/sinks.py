"""Sinks of a monitor: the journal of the study's trial by default, and the last step that each sink holds."""

import importlib
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from fnostab.errors import ConfigError
from fnostab.record.journal import Sink

__all__ = ["JOURNAL_VARIABLE", "SinkWriter", "last_steps", "session_sink"]

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


class SinkWriter:
    """Writes one fit into a sink, if there is one and this process is the one that writes."""

    def __init__(self, sink: Sink | None) -> None:
        self.writes = True
        self._sink = sink

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step, as `Sink.record` does."""
        if self._sink is not None and self.writes:
            self._sink.record(step, values)
            last_steps.note(self._sink, step)

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Record an event, as `Sink.event` does."""
        if self._sink is not None and self.writes:
            self._sink.event(name, payload)

    def refuse_second_fit(self, steps: int) -> None:
        """Raise a `ConfigError`, and write no more, if the sink holds steps of another fit than that at ``steps``.

        One that another process wrote, a sink knows by its ``held_step``; a fit from a checkpoint goes on with it.
        """
        last, held = last_steps.of(self._sink), getattr(self._sink, "held_step", -1)
        if steps <= last or (steps == 0 and held >= 0):
            self.writes = False
            raise ConfigError(
                f"the sink holds steps 0 to {max(last, held)} of another fit already: give each fit a sink of its own"
            )
