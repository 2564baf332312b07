"""Progress of a trial, read from its journal while it grows."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from fnostab.record import names
from fnostab.record.attempt import is_being_written
from fnostab.record.journal import FILE_NAME, Event, journal_file, read_journal
from fnostab.record.norm_curve import NormCurve
from fnostab.record.outcomes import EXCLUDED, FAILURES, Outcome
from fnostab.record.trial import TrialSpec

__all__ = ["TrialProgress", "is_being_written"]

STEPS = (names.GRAD_NORM, names.TRAIN_LOSS)  # either shows an optimiser step


@dataclass
class TrialProgress:
    """One trial of a study, and its progress as the journal has it so far."""

    spec: TrialSpec
    directory: Path
    outcome: Outcome | None = None  # None until it is known
    failure_step: int | None = None
    reason: str | None = None
    step: int | None = None
    scheduled_steps: int | None = None
    loss: float | None = None
    grad_norm: float | None = None
    held_step: int | None = None  # that an earlier attempt came to: its points are not recorded again
    run_elsewhere: str | None = None  # MLflow run that holds the outcome, if not this folder's journal
    fruitless: int = 0  # attempts in a row that came no further, but for those that were asked to end
    came_further: bool = False  # whether the last attempt recorded a new step
    unwritten: bool = False  # whether the outcome is not in the journal: its disk is full, say
    first_ms: int | None = None  # time of the journal's first record, Unix milliseconds
    started_s: float | None = None  # of the attempt that is under way, Unix time
    training_since_s: float | None = None  # the same without its start
    ended_s: float | None = None
    spikes: int = 0  # of the gradient norm
    owner: str | None = None  # "pid@host" of the process that wrote last
    queued: bool = False  # whether its job waits for the cluster
    curve: NormCurve = field(default_factory=NormCurve, repr=False, compare=False)
    _offset: int = field(default=0, repr=False)
    _open: bool = field(default=False, repr=False)  # whether an attempt began that has no outcome
    _new_steps: bool = field(default=False, repr=False)  # since the last outcome

    @property
    def name(self) -> str:
        """Arm and seed, as the trial's folder is called."""
        return f"{self.spec.arm}-{self.spec.seed}"

    @property
    def finished(self) -> bool:
        """Whether it has an outcome other than ``killed`` and ``infra_error``, after which a trial is tried again."""
        return self.outcome is not None and self.outcome not in (Outcome.KILLED, Outcome.INFRA_ERROR)

    @property
    def excluded(self) -> bool:
        """Whether it ended without a training outcome."""
        return self.outcome in EXCLUDED

    def begin_again(self) -> None:
        """Forget the end of the last attempt, before another one."""
        self.outcome = self.failure_step = self.reason = self.ended_s = None

    def update(self) -> None:
        """Read the records that were written since the last call."""
        path = self.directory / FILE_NAME
        if not journal_file(self.directory).exists():
            return
        for record, offset in read_journal(path, self._offset):
            self._offset = offset
            if self.first_ms is None:
                self.first_ms = record.time_ms
            if isinstance(record, Event):
                self._take_event(record)
                continue
            self.spikes += names.SPIKE in record.values
            if any(name in each for each in (record.values, record.nonfinite) for name in STEPS):
                self.step = record.step
                self._open = self._new_steps = True
                self.loss = record.values.get(names.TRAIN_LOSS)
                self.grad_norm = record.values.get(names.GRAD_NORM)
                if self.grad_norm is not None or names.GRAD_NORM in record.nonfinite:
                    self.curve.add(math.inf if self.grad_norm is None else self.grad_norm, record.step)

    def _take_event(self, event: Event) -> None:
        if event.name == names.TAGS_EVENT:
            self.owner = event.payload.get(names.OWNER, self.owner)
        if event.name == names.PARAMS_EVENT:  # an attempt begins
            if self._open:  # the one before was cut off
                self._count_attempt(counts=True)
            self._open = True
            self.held_step = self.held_step if self.step is None else self.step
            self.begin_again()
            self.step = self.loss = self.grad_norm = self.training_since_s = None
            self.started_s = event.time_ms / 1000
        elif event.name == names.STARTED_EVENT:
            self.scheduled_steps = event.payload.get("scheduled_steps")
            self.training_since_s = event.time_ms / 1000
        elif event.name == names.TAGS_EVENT and event.payload.get(names.OUTCOME) in FAILURES:
            self.failure_step = int(event.payload[names.FAILURE_STEP])
        elif event.name == names.OUTCOME_EVENT:
            self.outcome = Outcome(event.payload["outcome"])
            self.failure_step = event.payload.get("failure_step")
            self.reason = event.payload.get("reason")
            self.ended_s = event.time_ms / 1000
            self._count_attempt(counts=not self.finished and not event.payload.get("requested"))

    def _count_attempt(self, *, counts: bool) -> None:
        """Note at the end of an attempt whether it came further; if not, and if ``counts``, count it as fruitless."""
        self.came_further, self._new_steps, self._open = self._new_steps, False, False
        self.fruitless = 0 if self.came_further else self.fruitless + counts

    def seconds(self) -> float | None:
        """Duration of the last attempt, so far."""
        if self.started_s is None:
            return None
        return (self.ended_s or time.time()) - self.started_s

    def seconds_left(self) -> float | None:
        """Seconds until the training ends at its present pace; None if unknown."""
        if self.ended_s or self.step is None or not self.scheduled_steps or self.training_since_s is None:
            return None
        per_step = (time.time() - self.training_since_s) / (self.step + 1)
        return per_step * (self.scheduled_steps - self.step - 1)
