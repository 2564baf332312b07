"""State of a trial, read from its growing journal."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from fnostab.record import names
from fnostab.record.folders import trial_name
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, Event, journal_file
from fnostab.record.norm_curve import NormCurve
from fnostab.record.outcomes import EXCLUDED, FAILURES, Outcome
from fnostab.record.trial import TrialSpec

STEPS = (names.GRAD_NORM, names.TRAIN_LOSS)  # either marks an optimiser step


@dataclass
class TrialState:
    """Current state of a trial, from its journal or from its run in a store.

    Attributes:
        queued: whether its job waits in the cluster's queue.
        step: last recorded step, 0-based.
        scheduled_steps: number of steps of the whole training; None if not recorded.
        held_step: last step of earlier attempts; points up to it are not recorded again.
        spikes: number of gradient spikes so far; None if not counted.
        reason: explanation of an outcome that is not a training outcome.
        first_ms: time of the journal's first record, Unix milliseconds.
        started_s: Unix time at which the last attempt began; None if unknown.
        training_since_s: Unix time at which its training began, after start-up.
        ended_s: Unix time at which it ended.
        owner: 'pid@host' of the process that wrote last.
        run_id: run in MLflow, if the state comes from there.
    """

    arm: str
    seed: int
    outcome: Outcome | None = None
    running: bool = False
    queued: bool = False
    step: int | None = None
    scheduled_steps: int | None = None
    held_step: int | None = None
    loss: float | None = None
    grad_norm: float | None = None
    spikes: int | None = None
    failure_step: int | None = None
    reason: str | None = None
    first_ms: int | None = None
    started_s: float | None = None
    training_since_s: float | None = None
    ended_s: float | None = None
    owner: str | None = None
    run_id: str | None = None
    curve: NormCurve = field(default_factory=NormCurve, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Arm and seed, as in the name of the trial's folder."""
        return trial_name(self.arm, self.seed)

    @property
    def finished(self) -> bool:
        """Whether it has an outcome other than ``killed`` and ``infra_error``, which are retried."""
        return self.outcome is not None and self.outcome not in (Outcome.KILLED, Outcome.INFRA_ERROR)

    @property
    def settled(self) -> Outcome | None:
        """Outcome, unless it belongs to an attempt before the running or queued one."""
        return self.outcome if self.finished or not (self.running or self.queued) else None

    @property
    def failed(self) -> bool:
        """Whether its training failed."""
        return self.settled in FAILURES

    @property
    def excluded(self) -> bool:
        """Whether it ended without a training outcome."""
        return self.outcome in EXCLUDED

    @property
    def judged(self) -> bool:
        """Whether it counts in the failure rate of its arm."""
        return self.settled is not None and not self.excluded

    @property
    def where_failed(self) -> str:
        """Step of its failure, as " at step 5"; empty without one."""
        return "" if self.failure_step is None else f" at step {self.failure_step}"

    @property
    def waits(self) -> str:
        """Activity of a running trial that records no steps, "starting" or "repeats 500"; else empty."""
        if not self.running or self.step is not None:
            return ""
        again = self.training_since_s is not None and self.held_step is not None
        return f"repeats {(self.held_step or 0) + 1}" if again else "starting"

    @property
    def seconds(self) -> float | None:
        """Duration of the last attempt, so far."""
        return None if self.started_s is None else (self.ended_s or time.time()) - self.started_s

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the training of a running trial ends, at its present pace; None if unknown."""
        if not self.running or self.step is None or not self.scheduled_steps or self.training_since_s is None:
            return None
        per_step = (time.time() - self.training_since_s) / (self.step + 1)
        return max(0.0, per_step * (self.scheduled_steps - self.step - 1))


class TrialProgress(TrialState):
    """Progress of one trial, read incrementally from its journal; compared by identity.

    Attributes:
        run_id: MLflow run that holds the outcome, if not this folder's journal.
        fruitless: number of consecutive attempts without progress, not counting those that were asked to end.
        came_further: whether the last attempt recorded a new step.
        unwritten: whether the outcome could not be written to the journal, for example because the disk is full.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, spec: TrialSpec, directory: Path) -> None:
        super().__init__(spec.arm, spec.seed, spikes=0)
        self.spec = spec
        self.directory = directory
        self.fruitless = 0
        self.came_further = False
        self.unwritten = False
        self._offset = 0
        self._open = False  # whether an attempt began that has no outcome yet
        self._new_steps = False  # since the last outcome

    def begin_again(self) -> None:
        """Forget the end of the last attempt before another one starts."""
        self.outcome = self.failure_step = self.reason = self.ended_s = None

    def update(self) -> None:
        """Read the records written since the last call."""
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
            self.spikes = (self.spikes or 0) + (names.SPIKE in record.values)
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
            if self._open:  # the previous one was cut off
                self._count_attempt(counts=True)
            self._open = True
            self.held_step = self.held_step if self.step is None else self.step
            self.begin_again()
            self.step = self.loss = self.grad_norm = self.training_since_s = None
            self.started_s = event.time_ms / 1000
        elif event.name == names.STARTED_EVENT:
            self.scheduled_steps = event.payload.get("scheduled_steps")
            self.training_since_s = event.time_ms / 1000
        elif event.name == names.OUTCOME_EVENT:
            outcome = event.payload.get("outcome")
            self.outcome = None if outcome is None else Outcome(outcome)  # None: it was not judged
            self.failure_step = event.payload.get("failure_step")
            self.reason = event.payload.get("reason")
            self.ended_s = event.time_ms / 1000
            self._count_attempt(counts=not self.finished and not event.payload.get("requested"))

    def _count_attempt(self, *, counts: bool) -> None:
        """Note at the end of an attempt whether it progressed; if not, count it as fruitless if ``counts``."""
        self.came_further, self._new_steps, self._open = self._new_steps, False, False
        self.fruitless = 0 if self.came_further else self.fruitless + counts
