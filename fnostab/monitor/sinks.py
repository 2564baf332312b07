"""Writer of a monitor to its sink, and the last step recorded in each sink."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from fnostab.errors import ConfigError
from fnostab.record.journal import Sink

_last_steps: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # of sinks that support weak references


def last_step_of(sink: Sink | None) -> int:
    """Last step that monitors of this process recorded in a sink; -1 if there is none, or if that is not known."""
    try:
        return _last_steps.get(sink, -1)
    except TypeError:
        return -1


class SinkWriter:
    """Writer of one fit to its sink; does nothing without a sink or in a process that does not write.

    Raises:
        ConfigError: ``sink`` can't be recorded into, for example a `live_sink` that was not entered.
    """

    def __init__(self, sink: Sink | None) -> None:
        if sink is not None and not (hasattr(sink, "record") and hasattr(sink, "event")):
            raise ConfigError(
                f"sink={sink!r} is not accepted: expected one, as `with live_sink(...) as sink:` gives it"
            )
        self.writes = True
        self._sink = sink

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step, as `Sink.record` does."""
        if self._sink is not None and self.writes:
            self._sink.record(step, values)
            with suppress(TypeError):
                _last_steps[self._sink] = max(step, last_step_of(self._sink))

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Record an event, as `Sink.event` does."""
        if self._sink is not None and self.writes:
            self._sink.event(name, payload)

    def refuse_second_fit(self, steps: int) -> None:
        """Raise a `ConfigError`, and stop writing, if the sink holds steps of another fit than the one at ``steps``.

        A sink's ``held_step`` tells of a fit written by another process, which a fit from a checkpoint continues.
        """
        last, held = last_step_of(self._sink), getattr(self._sink, "held_step", -1)
        if steps <= last or (steps == 0 and held >= 0):
            self.writes = False
            raise ConfigError(
                f"the sink holds steps 0 to {max(last, held)} of another fit already: give each fit a sink of its own"
            )
