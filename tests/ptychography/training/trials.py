"""Tiny trials, and what their journals hold."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tiny import TINY
from trial_records import trial_spec

from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event, Point
from fnostab.record.outcomes import Outcome

THREE_EPOCHS = TINY | {"training.epochs": 3}
STEPS_AN_EPOCH = 11  # 81 patterns in batches of 8
OF_THE_MACHINE = ("system/", names.SAMPLES_PER_S, names.PEAK_MEMORY)


def make_spec(shared_dir, seed=0, **settings):
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return trial_spec(THREE_EPOCHS | dotted, seed=seed, shared_dir=shared_dir)


@dataclass(frozen=True)
class Trained:
    """A trial that was run, with its journal."""

    outcome: Outcome
    directory: Path

    @cached_property
    def records(self):
        return [record for record, _ in read_journal(self.directory / "journal.jsonl")]

    @cached_property
    def points(self):
        """(metric, step, value) of every point but those of the machine, non-finite ones as text, in order."""
        return [
            (name, point.step, value)
            for point in self.records
            if isinstance(point, Point)
            for name, value in [*point.values.items(), *point.nonfinite.items()]
            if not name.startswith(OF_THE_MACHINE)
        ]

    def curve(self, metric):
        return {step: value for name, step, value in self.points if name == metric}

    def value(self, metric):
        (value,) = self.curve(metric).values()
        return value

    def events(self, name):
        return [record.payload for record in self.records if isinstance(record, Event) and record.name == name]

    @property
    def final(self):
        """What the outcome event says, the last thing that a trial writes."""
        last = self.records[-1]
        assert isinstance(last, Event)
        assert last.name == names.OUTCOME_EVENT
        return last.payload
