"""Ask and tell: the user's own loop, for example in a notebook, trains the trials of a study.

    study = fnostab.Study("qk", control={"qk_norm": False}, arms={"qk": {"qk_norm": True}}, seeds=5, baseline=3.02)
    for trial in study:
        with trial.recorder() as rec:
            train(**trial.settings, seed=trial.seed, rec=rec)
    study.decide()

The records are the same as for any other study: a folder of journals. A trial is judged when its recorder closes.
This process does the work of both the supervisor (`fnostab.tasks.command.supervisor`) and the program.
"""

import logging
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from fnostab.errors import DecisionError, JournalError, LaunchError
from fnostab.launch.resuming import extended, other_study, read_journals
from fnostab.record.attempt import is_being_written
from fnostab.record.ending import close_program_trial
from fnostab.record.journal import Journal
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.process_end import ProcessEnd
from fnostab.record.progress import TrialProgress
from fnostab.record.recorder import (
    AFTER_FAILURE_VARIABLE,
    JOURNAL_VARIABLE,
    RANK_VARIABLES,
    TOKEN_VARIABLE,
    Recorder,
    shared,
)
from fnostab.record.safe_files import HeldElsewhereError, held
from fnostab.record.stderr_tail import STDERR_FILE
from fnostab.record.trial import StudySpec
from fnostab.study.file import StudyFile, read_study_file, study_file_of
from fnostab.study.study import Study as ResolvedStudy
from fnostab.tasks.ask import Ask
from fnostab.tasks.command.supervisor import begin_attempt, no_recorder
from fnostab.tasks.python_arguments import not_accepted, seeds_of, study_values
from fnostab.tracking.environment import settled

if TYPE_CHECKING:
    from fnostab.report.case import Case

__all__ = ["Study", "Trial"]

LOCK_NAME = "ask.lock"  # in a study's folder; locked while a trial is chosen
WAIT_S = 60.0
_log = logging.getLogger(__name__)


class Study:
    """A study that hands out its missing trials: ``for trial in study``.

    A second loop, in another process or after an interruption, continues the study. It skips trials that have their
    outcome and trials that another process is training; it repeats those that were killed or that an error of the code
    ended. More seeds or arms extend the study; a different control starts a new one. The code is not compared: rename
    the study if the code changes.

    Args:
        name: name of the study.
        control: settings of the control arm, with which the others are compared. They declare the names and types of
            all settings; one that is None has the type of the value that an arm gives it.
        arms: for each further arm, the settings in which it differs from control.
        seeds: number of seeds, or a list of seeds.
        metric: name of the metric that decides besides failures, as ``val/loss``, or a mapping as in a study file:
            ``{"name": "val/accuracy", "higher_is_better": True, "of": "last"}``.
        baseline: metric of an output that has learnt nothing; a trial that is no better has failed.
        outcome: further failure rules, as in a study file: ``{"failed": {"above": 3.5}}``.
        margin: how much worse than control counts as no worse.
        description: the question of the study, in a sentence.
        output: folder of journals.
        experiment: name of the MLflow experiment; None for the study's name.

    Raises:
        ConfigError: a name, setting or rule is not accepted.
    """

    def __init__(
        self,
        name: str,
        *,
        control: Mapping[str, Any],
        arms: Mapping[str, Mapping[str, Any]],
        seeds: int | Sequence[int] = 10,
        metric: str | Mapping[str, Any] = "val/loss",
        baseline: float | None = None,
        outcome: Mapping[str, Any] | None = None,
        margin: float | None = None,
        description: str = "",
        output: str | Path = "outputs",
        experiment: str | None = None,
    ) -> None:
        source = f"Study({name!r})"
        values = study_values(source, name, control, arms, seeds, metric, baseline, outcome, margin, description)
        self._set_up(source, study_file_of(values, source), output, experiment)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        seeds: int | Sequence[int] | None = None,
        output: str | Path = "outputs",
        experiment: str | None = None,
    ) -> Self:
        """Read a study from a YAML file that names neither ``command`` nor ``task``.

        Args:
            path: path of the YAML file.
            seeds: number of seeds, or a list of seeds; None for the file's own.
            output: folder of journals.
            experiment: name of the MLflow experiment; None for the study's name.

        Raises:
            ConfigError: the file can't be read, or a part of it is not accepted.
        """
        study, file = cls.__new__(cls), read_study_file(str(path))
        study._set_up(str(path), file, output, experiment, seeds)
        return study

    def _set_up(
        self,
        source: str,
        file: StudyFile,
        output: str | Path,
        experiment: str | None,
        seeds: int | Sequence[int] | None = None,
    ) -> None:
        if not isinstance(output, str | Path):
            raise not_accepted(source, "output", output, "a folder, as 'outputs'")
        if not isinstance(experiment, str | None):
            raise not_accepted(source, "experiment", experiment, "a name, or None for the study's")
        self._task = Ask(file)
        self._study = ResolvedStudy(file, None, task=self._task)
        self._output = Path(output).absolute()
        self._experiment = experiment or file.name
        asked = () if seeds is None else seeds_of(source, seeds)
        self._seeds = range(asked) if isinstance(asked, int) else asked
        self.folder = self._study.folder(self._output, self._experiment)  # of the journals
        self._study.spec(self._experiment)  # refuses a name of the experiment that names no folder
        for line in self._study.twins():
            _log.warning("%s", line)

    def __iter__(self) -> Iterator["Trial"]:
        """Hand out the trials that are missing, seed by seed.

        Raises:
            LaunchError: this process has a rank above 0, the loop did not record a trial, or the study's folder can't
                be written or is locked.
            JournalError: a journal is damaged, or can't be written.
        """
        for name in RANK_VARIABLES:
            if (rank := os.environ.get(name, "0")) != "0":
                raise LaunchError(
                    f"{name}={rank}: only rank 0 gets trials; unset {name} in processes that train trials of their own"
                )
        elsewhere = []
        for progress in self._read()[1]:
            trial = self._take(progress)
            if trial is None:
                elsewhere += [] if progress.finished else [progress.name]
                continue
            yield trial
            trial._let_go()
            if not trial._begun:
                raise LaunchError(
                    f"{trial.name} was not recorded: train it in `with trial.recorder() as rec:`, within the loop"
                )
        if elsewhere:
            _log.warning("%d trials, as %s, are being trained by another process", len(elsewhere), elsewhere[0])

    def decide(self, tracking_uri: str | None = None) -> "Case":
        """Send the records to MLflow and judge them, as `fnostab sync` and `fnostab decide` do.

        The verdict is recorded; as with these commands, a later verdict on more seeds is tested at a stricter level.

        Args:
            tracking_uri: address of MLflow; None for MLFLOW_TRACKING_URI or ./mlflow.db.

        Returns:
            The answers with their evidence, shown in a notebook as the first box of a report and elsewhere as text.

        Raises:
            DecisionError: no trial was trained.
            TrackingError: the store does not answer.
        """
        record, trials = self._read()
        if not any(trial.first_ms for trial in trials):
            raise DecisionError(f"no trial of {record.name} was trained: `for trial in study:` yields them")
        with settled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")  # from tqdm in a notebook; no bar is shown here
            from fnostab.report.judging import StoredStudies, judge_and_record
            from fnostab.tracking import find_study, open_store, sync

            store = open_store(tracking_uri)
            for line in sync(self.folder, store).refused:
                _log.warning("not sent: %s", line)
            _, run = find_study(store, self._experiment, record.hash) or (None, None)
            stored = StoredStudies(self._experiment, study_run=run, tracking_uri=tracking_uri)
            return judge_and_record(store, stored).case

    def _read(self) -> tuple[StudySpec, list[TrialProgress]]:
        """Write the study's record into its folder; return it with the trials in their current state."""
        trials = self._study.trials(self._experiment, self._output, seeds=self._seeds)
        if other := other_study(self._study.spec(self._experiment), self.folder):
            _log.warning("%s", other)
        with self._held():
            record = extended(self._study.spec(self._experiment, trials), self.folder)
            read_journals(record, trials, self.folder)
        return record, trials

    def _take(self, progress: TrialProgress) -> "Trial | None":
        """Lock a trial's journal and return the trial; None if it is finished or another process trains it."""
        _let_go_of_last()
        with self._held():
            progress.update()
            if progress.finished or is_being_written(progress.directory):
                return None
            return Trial(progress, self._task.as_written(progress.spec.settings))

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Lock the study's folder, so that no other process chooses trials of it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / LOCK_NAME).touch()
            with held(self.folder / LOCK_NAME, WAIT_S):
                yield
        except HeldElsewhereError as error:
            raise LaunchError(f"{error} for more than {WAIT_S:.0f} s: end that process") from None
        except OSError as error:
            raise LaunchError(
                f"can't write {self.folder}: {error.strerror or error}; choose another output="
            ) from error


_last: "Trial | None" = None  # the trial handed out last; a process trains one at a time


def _let_go_of_last() -> None:
    """Unlock the trial of an abandoned loop, which a notebook keeps alive with the error that ended the loop."""
    if _last is not None and _last._pid == os.getpid():
        if _last._recording:
            raise LaunchError(f"{_last.name} is being recorded by this process: end its `with trial.recorder()` first")
        _last._let_go()


class Trial:
    """One arm at one seed, handed out to be trained; its journal is locked until it has its outcome.

    Attributes:
        arm: name of the arm.
        seed: seed for everything random in the training.
        settings: settings of the arm, by name.
        directory: folder for the training's own files; PNG, CSV, JSON and text files in it are sent to MLflow.
        outcome: outcome of the trial; None until it is known.
    """

    def __init__(self, progress: TrialProgress, settings: Mapping[str, Any]) -> None:
        global _last
        self.arm, self.seed, self.name = progress.arm, progress.seed, progress.name
        self.settings = dict(settings)
        self.directory = progress.directory / "files"
        self.outcome: Outcome | None = None
        self._spec = progress.spec
        self._journal: Journal | None = Journal(progress.directory)
        self._begun = self._recording = False
        self._pid = os.getpid()
        _last = self

    def __repr__(self) -> str:
        return f"<Trial {self.name}: {self.settings}>"

    @contextmanager
    def recorder(self) -> Iterator[Recorder]:
        """Record the training in this block, and judge it when the block ends. Call it once per trial.

        A `StabilityMonitor` and a `Recorder` that are created within the block write to the same journal.

        An error in the block is raised again, unless the training had already failed (``nonfinite``, or a failure that
        ``rec.failed`` announced) or memory ran out: these are outcomes, so the error is logged as a warning and the
        loop continues. After any other error the outcome is ``infra_error``, after Ctrl-C ``killed``; the trial is then
        handed out again.

        Raises:
            JournalError: the trial has been recorded or skipped already, or its journal can't be written.
            LaunchError: this process is recording another trial, or the trial can't be judged: it recorded nothing,
                lacks a metric of the outcome rules, or has the same values as another seed.
        """
        journal, self._journal = self._journal, None
        if journal is None:
            raise JournalError(f"{self.name} has already been recorded or skipped: take the next trial from the loop")
        if JOURNAL_VARIABLE in os.environ:
            journal.close()
            raise LaunchError(f"this process is already recording a trial: {os.environ[JOURNAL_VARIABLE]}")
        raised: BaseException | None = None
        self._begun = self._recording = True
        try:
            with journal, _interruptions() as interrupted:
                with _session(journal, self._spec.after_failure, begin_attempt(journal, self._spec)):
                    try:
                        with Recorder() as rec, shared(rec):
                            yield rec
                    except BaseException as error:  # raised or logged below, once the trial has its outcome
                        raised = error
                if os.getpid() != self._pid:  # a fork left the block: only its parent judges the trial
                    if raised is not None:
                        raise raised
                    return
                with no_recorder(journal.directory):
                    journal.take_back()
                    self.outcome = close_program_trial(
                        journal, self._spec, _end_of(raised, journal.directory, bool(interrupted))
                    )
        finally:
            self._recording = False
        progress = TrialProgress(self._spec, journal.directory)
        progress.update()
        if raised is None and self.outcome is Outcome.INFRA_ERROR:
            raise LaunchError(f"{self.name}: {progress.reason}")
        if isinstance(raised, Exception) and (self.outcome in TRAINING_OUTCOMES or self.outcome is Outcome.OOM):
            said = f"{type(raised).__name__}: {raised}"
            _log.warning("%s: %s (%s); the loop continues", self.name, self.outcome, said)
        elif raised is not None:
            raise raised
        elif self.outcome is Outcome.KILLED:  # the training caught Ctrl-C itself
            _log.warning("%s: killed (Ctrl-C before its last step); the loop continues", self.name)

    def _let_go(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


@contextmanager
def _session(journal: Journal, after_failure: str, token: str) -> Iterator[None]:
    """Lend a journal to recorders of this process; they find it by environment variables, as in a program."""
    journal.lend()
    own = {JOURNAL_VARIABLE: str(journal.directory), TOKEN_VARIABLE: token, AFTER_FAILURE_VARIABLE: after_failure}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Collect the signals of Ctrl-C in this block: a training may catch it, and would then look finished."""
    signals: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def collect(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        if callable(before):
            before(signum, frame)

    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield signals
        return
    signal.signal(signal.SIGINT, collect)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, before)


def _end_of(error: BaseException | None, directory: Path, interrupted: bool) -> ProcessEnd:
    """Describe the end of a training as a program's: exit status 0, or 1 after an error; asked to end after Ctrl-C.

    The error's traceback is written to the trial's stderr file.
    """
    if error is None:
        return ProcessEnd(0, interrupted, goes_on=True)
    with suppress(OSError), open(directory / STDERR_FILE, "a", encoding="utf-8") as log:  # the disk may be full
        log.write("".join(traceback.format_exception(error)))
    if isinstance(error, Exception):
        return ProcessEnd(1, interrupted, tail="".join(traceback.format_exception_only(error)), goes_on=True)
    return ProcessEnd(None, asked=True, goes_on=True)
