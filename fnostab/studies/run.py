"""Run a study: what is missing of it, on this machine, recorded as it happens."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fnostab.errors import TrackingError
from fnostab.outcomes import Outcome
from fnostab.studies.local import LocalLauncher, default_jobs
from fnostab.studies.progress import TrialProgress
from fnostab.studies.spec import Study
from fnostab.studies.view import StudyView
from fnostab.tracking import Store, Uploader, ensure_study, finish_study, link_project_run, open_store
from fnostab.trial import TrialSpec

__all__ = ["StudyRun", "run_study"]

POLL_S = 0.25
DRAIN_S = 60.0


@dataclass(frozen=True)
class StudyRun:
    """What `run_study` did.

    Attributes:
        store: where it is recorded.
        experiment: name of the MLflow experiment.
        run_id: of the study's run.
        folder: of the study's journals.
        trials: those that were asked for, with their outcomes.
        unsent: why some records are only on disk; None if all were sent.
    """

    store: Store
    experiment: str
    run_id: str
    folder: Path
    trials: Sequence[TrialProgress]
    unsent: str | None


def run_study(
    study: Study,
    *,
    experiment: str,
    output: Path,
    seeds: Sequence[int] = (),
    arms: Sequence[str] = (),
    jobs: int | None = None,
    retry_oom: bool = False,
    tracking_uri: str | None = None,
    console: Console,
) -> StudyRun:
    """Run the trials of a study that have no outcome yet.

    Trials that were ``killed`` or ended in an ``infra_error`` are tried again, those that ran out of
    memory only if asked; finished ones never. A trial that fails stops no other.

    Args:
        study: resolved and checked.
        experiment: MLflow experiment.
        output: folder of journals and data sets.
        seeds: empty for the study's own.
        arms: only these; empty for all.
        jobs: trials side by side; None chooses for this machine.
        retry_oom: try trials again that ran out of memory.
        tracking_uri: of MLflow; None takes MLFLOW_TRACKING_URI or ./mlflow.db.
        console: to show progress on.

    Raises:
        FnostabError: it could not be started; nothing was left half made.
        KeyboardInterrupt: it was interrupted; what ran is recorded as ``killed``.
    """
    output = output.absolute()
    folder = output / experiment / study.hash
    specs = study.trials(experiment, output / "datasets", arms=arms, seeds=seeds)
    device = next(iter(study.arms.values())).execution.device
    jobs = default_jobs(device) if jobs is None else jobs
    launcher = LocalLauncher(jobs, device)
    store = open_store(tracking_uri)
    console.print(f"study {study.hash} ({study.profile} profile) in experiment {experiment} at {store.address}")
    _prepare(study, specs, console)

    study.spec(experiment).write(folder / "study.json")
    trials = [_trial(spec, folder) for spec in specs]
    study_run_id = ensure_study(store, study.spec(experiment))
    link_project_run(store, study_run_id)
    uploader = Uploader(store, study_run_id)
    for trial in trials:
        uploader.follow(trial.directory)
    uploader.start()
    status = "KILLED"
    try:
        with _terminable():
            _work_off(trials, launcher, uploader, jobs, retry_oom, console, title=f"{study.file.name} in {experiment}")
        status = "FINISHED"
    except BaseException:
        console.print("ending the trials that run; the same command goes on where this one stopped")
        launcher.cancel()
        raise
    finally:
        uploader.stop()
        unsent = _drain(uploader)
        if unsent is None:
            finish_study(store, study_run_id, status)
    return StudyRun(store, experiment, study_run_id, folder, trials, unsent)


def _work_off(
    trials: Sequence[TrialProgress],
    launcher: LocalLauncher,
    uploader: Uploader,
    jobs: int,
    retry_oom: bool,
    console: Console,
    title: str,
) -> None:
    again = [t for t in trials if not t.finished or (retry_oom and t.outcome is Outcome.OOM)]
    for trial in again:
        trial.outcome = None
    if len(again) < len(trials):
        console.print(f"{len(trials) - len(again)} of {len(trials)} trials are finished already")
    waiting, running = list(again), list[TrialProgress]()
    with StudyView(title, trials, jobs, console) as view:
        while waiting or running:
            while waiting and launcher.free:
                running.append(waiting.pop(0))
                launcher.submit(running[-1])
            for ended in launcher.poll():
                running.remove(ended)
            for trial in running:
                trial.update()
            view.update(running, uploader.trouble)
            time.sleep(POLL_S)
        view.update([], uploader.trouble)


def _trial(spec: TrialSpec, folder: Path) -> TrialProgress:
    trial = TrialProgress(spec, folder / f"{spec.arm}-{spec.seed}")
    spec.write(trial.directory / "trial.json")
    trial.update()
    return trial


def _prepare(study: Study, specs: Sequence[TrialSpec], console: Console) -> None:
    """Make the data sets that all arms share, and see that every network can be built."""
    from fnostab.data import prepare  # here: they import torch, which takes seconds
    from fnostab.models import build_generator, check_generator

    for spec in {s.arm: s for s in specs}.values():
        check_generator(build_generator(spec.config.model), spec.config.data.N)
    shared = [s for s in specs if "data" not in s.config.vary]
    for spec in {s.config.data.model_dump_json(): s for s in shared}.values():
        started = time.monotonic()
        console.print("preparing the data set ...", end=" ")
        prepare(spec.config.data, spec.config.data_seed(spec.seed), spec.data_dir)
        console.print(f"{time.monotonic() - started:.1f} s")


def _drain(uploader: Uploader) -> str | None:
    try:
        uploader.drain(DRAIN_S)
    except TrackingError as error:
        return str(error)
    return None


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, so that no trial is left behind."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
