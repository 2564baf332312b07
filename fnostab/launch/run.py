"""Run the missing trials of a study and record them as they run."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from fnostab.errors import TrackingError
from fnostab.launch.cancelling import forget_cancelling, is_cancelled
from fnostab.launch.launcher import Launcher, jobs_of
from fnostab.launch.local import LocalLauncher, default_jobs
from fnostab.launch.overwritten_files import overwritten
from fnostab.launch.resuming import extended, other_study, read_journals
from fnostab.launch.retries import ATTEMPTS, FailuresAlike, Retries
from fnostab.launch.runs_in_store import close_abandoned, insist_on_no_jobs, take_from_store
from fnostab.launch.study_upload import Recording
from fnostab.record.missing_metric import metric_not_in_journal
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import TrialSpec
from fnostab.show.console import Console as SafeConsole
from fnostab.show.console import say, timed
from fnostab.show.state import StudyState
from fnostab.show.view import Display
from fnostab.study.study import Study
from fnostab.tasks.contract import Estimates
from fnostab.tasks.python_arguments import not_accepted, seeds_of
from fnostab.tracking import Store
from fnostab.tracking.environment import settled

POLL_S = 0.25
ONE_REQUEST_S = 1.0  # a second signal within this time belongs to the same request


@dataclass(frozen=True)
class StudyRun:
    """Result of `run_study`.

    Attributes:
        trials: the requested trials, with their outcomes.
        given_up: trials that are not retried unless more attempts are allowed.
        unsent: reason why some records are only on disk; None if all were sent.
        overwritten: message on files that trials may have overwritten; None without any.
    """

    recording: Recording
    experiment: str
    folder: Path
    trials: Sequence[TrialProgress]
    given_up: Sequence[TrialProgress]
    unsent: str | None
    overwritten: str | None = None

    @property
    def store(self) -> Store:
        """Store that holds the records.

        Raises:
            TrackingError: the store never answered.
        """
        if self.recording.store is None:
            raise TrackingError(self.unsent or "the tracking server has not answered")
        return self.recording.store

    @property
    def run_id(self) -> str:
        """Id of the study's run.

        Raises:
            TrackingError: the store never answered.
        """
        if self.recording.run_id is None:
            raise TrackingError(self.unsent or "the tracking server has not answered")
        return self.recording.run_id


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that no process or temporary folder is left behind.

    Signals within a second count as one request: `timeout` signals the process and then its group, and the
    second signal would interrupt the cleanup and leave trials running. Outside the main thread, where Python
    allows no handlers, signals stay the caller's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked_s = -math.inf

    def interrupt(signum: int, frame: object) -> None:
        nonlocal asked_s
        if time.monotonic() - asked_s > ONE_REQUEST_S:
            asked_s = time.monotonic()
            raise KeyboardInterrupt

    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@settled()
@_terminable()
def run_study(
    study: Study,
    *,
    experiment: str | None = None,
    output: str | Path = "outputs",
    seeds: int | Sequence[int] = (),
    arms: Sequence[str] = (),
    jobs: int | None = None,
    launcher: Launcher | None = None,
    retry_oom: bool = False,
    attempts: int = ATTEMPTS,
    once: bool = False,
    tracking_uri: str | None = None,
    console: Console | None = None,
) -> StudyRun:
    """Run the trials of a study that have no outcome yet.

    Trials that were ``killed`` or ended in an ``infra_error`` are retried, at once and at later
    starts, until ``attempts`` in a row made no progress; those that ran out of memory only on request;
    finished ones never, even if only MLflow has their outcome. A failed trial does not stop others.
    Orphaned runs of the experiment are closed first. Before any trial starts, the cost of each arm is
    shown, and an arm that does not fit into memory is refused.

    Args:
        study: resolved and checked study.
        experiment: MLflow experiment; None for the study's name.
        output: folder of journals and data sets.
        seeds: number of seeds to run, or a list of them; empty for the study's own.
        arms: arms to run; empty for all.
        jobs: number of concurrent trials; None chooses for this machine.
        launcher: launcher of the trials; None for ``jobs`` processes of this machine.
        retry_oom: retry trials that ran out of memory.
        attempts: consecutive attempts without progress before a trial is given up.
        once: try each trial without a result exactly once, also if it was given up or ran out of memory.
        tracking_uri: MLflow store; None for MLFLOW_TRACKING_URI or ./mlflow.db.
        console: console for progress; None for the terminal, `rich.console.Console(quiet=True)` for no output.

    Raises:
        FnostabError: the study could not be started; nothing was left half-written.
        KeyboardInterrupt: the study was interrupted; running trials are recorded as ``killed``.
    """
    seeds = _checked(study, seeds, arms, jobs)
    experiment, output, console = experiment or study.file.name, Path(output).absolute(), console or SafeConsole()
    study.spec(experiment)  # raises if the experiment's name is not a valid folder name
    trials = study.trials(experiment, output, arms=arms, seeds=seeds)
    record = study.spec(experiment, trials)
    if launcher is None:
        takes = study.resources
        launcher = LocalLauncher(jobs or default_jobs(takes.gpu, one_a_core=takes.one_a_core), takes.gpu)
    study.task.check_start([trial.spec for trial in trials], here=launcher.here, lockstep=launcher.lockstep)
    retries = Retries(attempts, retry_oom, once)
    for trial in trials:
        trial.update()
    wanted = [trial.spec for trial in trials if retries.wants(trial)]
    if wanted and isinstance(launcher, LocalLauncher):
        launcher.import_ahead(study.resources)  # while the store is opened
    recording = Recording(tracking_uri, console)
    at = f" at {recording.store.address}" if recording.store is not None else ""
    say(console, f"study {study.described} in experiment {experiment}{at}")
    say(console, *study.twins(arms))
    folder = study.folder(output, experiment)
    if launcher.here:
        insist_on_no_jobs(folder)
    estimates = _prepare(study, wanted, launcher, console) if wanted else None
    recording.ask(lambda store: close_abandoned(store, experiment, output, console))
    record = extended(record, folder)
    if other := other_study(record, folder):
        say(console, other)
    read_journals(record, trials, folder)
    recording.ask(lambda store: take_from_store(store, record, trials, retry_oom, console))
    wanted = [trial.spec for trial in trials if retries.wants(trial)]
    if wanted and estimates is not None:
        _show_estimates(estimates, wanted, console)

    since_s = time.time()
    try:
        recording.start(record, trials, folder)
        forget_cancelling(folder)
        title = f"{study.file.name} ({study.profile} profile)" if study.profile else study.file.name
        _work_off(trials, launcher, recording, retries, console, title)
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        if unsent := recording.finish(status):
            say(console, unsent)
        raise
    status = "FINISHED" if all(trial.finished for trial in trials) else "FAILED"
    unsent = recording.finish(status)
    given_up = [trial for trial in trials if retries.gave_up(trial)]
    line = overwritten(wanted, output, since_s) if launcher.here else None
    return StudyRun(recording, experiment, folder, trials, given_up, unsent, line)


def _checked(study: Any, seeds: Any, arms: Any, jobs: Any) -> Sequence[int]:
    """Check what Python callers may confuse, and return the seeds as a sequence.

    Raises:
        ConfigError: an argument has the wrong type, or a seed or arm is repeated.
    """
    if not isinstance(study, Study):
        raise not_accepted("run_study", "study", study, "a study, as load_study('study.yaml')")
    if isinstance(arms, str) or len(set(arms)) < len(arms):
        raise not_accepted("run_study", "arms", arms, "a list of names without repetition, as ['control', 'clipped']")
    if not isinstance(jobs, int | None):
        raise not_accepted("run_study", "jobs", jobs, "a whole number, or None")
    found = () if isinstance(seeds, Sized) and not len(seeds) else seeds_of("run_study", seeds)
    return range(found) if isinstance(found, int) else found


def _work_off(
    trials: Sequence[TrialProgress],
    launcher: Launcher,
    recording: Recording,
    retries: Retries,
    console: Console,
    title: str,
) -> None:
    waiting, running = _to_run(trials, retries, console), list[TrialProgress]()
    alike = FailuresAlike()
    # A Python task names its metric; for a program, the first trial that ends shows whether it records the metric.
    knows_metric = any(trial.spec.argv is None or trial.outcome is Outcome.CONVERGED for trial in trials)

    def state(running: Sequence[TrialProgress]) -> StudyState:
        at_work = {trial for trial in running if not trial.queued}
        for trial in trials:
            trial.running = trial in at_work
        waits = f"records wait on disk: {recording.trouble}" if recording.trouble else None
        return StudyState(title, trials, launcher.jobs, trouble=launcher.trouble or waits)

    known = {trial.name for trial in trials if trial.finished}
    with Display(Console(quiet=True) if launcher.live else console, known) as view:
        try:
            while waiting or running:
                _stop_if_cancelled(trials, launcher, console)
                running += _started(waiting, launcher)
                newly_ended = launcher.poll()
                for ended in newly_ended:
                    running.remove(ended)
                    if ended.outcome is Outcome.CONVERGED and not knows_metric:
                        knows_metric = True
                        if line := metric_not_in_journal(ended.spec.judged, ended.directory):
                            say(console, line)
                    if said := alike.take(ended):
                        say(console, said)
                        view.was_told(ended.name)
                        waiting.clear()
                for ended in newly_ended:  # after `alike` is updated
                    if retries.wants_again(ended) and not alike.found:
                        say(console, f"{ended.name}: {ended.outcome} ({ended.reason}); retrying")
                        view.was_told(ended.name)
                        waiting.append(ended)
                    elif launcher.live and ended.finished and ended.reason:  # the process printed the outcome alone
                        say(console, f"{ended.name}: {ended.reason}")
                for trial in running:
                    if not trial.queued:
                        trial.update()
                view.update(state(running))
                time.sleep(POLL_S)
        except BaseException as error:
            error.add_note(launcher.leaving)  # shown to whoever is notified
            try:
                say(console, launcher.leaving)
            finally:
                launcher.leave()
            view.study = state([])
            raise
        view.update(state([]))


def _started(waiting: list[TrialProgress], launcher: Launcher) -> list[TrialProgress]:
    """Start as many of the waiting trials as there is room for; move them from ``waiting`` to the result."""
    started = list[TrialProgress]()
    while waiting and launcher.free:
        together = jobs_of(waiting, launcher)[0]
        for trial in together:
            waiting.remove(trial)
            trial.begin_again()
        launcher.submit(together)
        started += together
    return started


def _stop_if_cancelled(trials: Sequence[TrialProgress], launcher: Launcher, console: Console) -> None:
    if is_cancelled(trials[0].directory.parent):
        say(console, "cancelled by `fnostab cancel`")
        launcher.cancel()
        raise KeyboardInterrupt


def _to_run(trials: Sequence[TrialProgress], retries: Retries, console: Console) -> list[TrialProgress]:
    """Select and prepare the trials to start."""
    wanted = [trial for trial in trials if retries.wants(trial)]
    for trial in wanted:
        trial.begin_again()
    if finished := sum(trial.finished for trial in trials):
        console.print(f"{finished} of {counted(len(trials), 'trial is', 'trials are')} finished already")
    if given_up := [trial for trial in trials if retries.gave_up(trial)]:
        of = counted(len(trials), "trial was", "trials were")
        say(console, f"{len(given_up)} of {of} given up earlier, such as {given_up[0].name}")
    return wanted


def _prepare(study: Study, wanted: Sequence[TrialSpec], launcher: Launcher, console: Console) -> Estimates | None:
    """Estimate the cost of the arms to run, try them, and prepare what they share, before any trial is written.

    Raises:
        FnostabError: an arm does not fit into memory, or can't run.
    """
    call = partial(launcher.call, resources=study.resources)
    estimates = None
    if isinstance(launcher, LocalLauncher):
        with timed(console, "loading torch, computing memory") if study.resources.preloads else nullcontext():
            estimates = study.task.preflight(wanted, min(launcher.jobs, len(wanted)), launcher.gpus, call)
    if estimates is not None:
        estimates.insist_on_fit()
    study.task.prepare(wanted, console, call, here=launcher.here, lockstep=launcher.lockstep)
    return estimates


def _show_estimates(estimates: Estimates, specs: Sequence[TrialSpec], console: Console) -> None:
    with timed(console, f"measuring a step of {estimates.described}"):
        estimates.measure()
    console.print(estimates.table())
    say(console, estimates.summary(Counter(spec.arm for spec in specs)))
