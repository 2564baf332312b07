"""Run a study: what is missing of it, on this machine, recorded as it happens."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fnostab.errors import LaunchError, TrackingError
from fnostab.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.studies.local import LocalLauncher, default_jobs
from fnostab.studies.progress import TrialProgress
from fnostab.studies.spec import Study
from fnostab.studies.view import StudyView
from fnostab.tracking import (
    Store,
    Uploader,
    end_unwritten,
    ensure_study,
    finish_study,
    link_project_run,
    open_store,
    runs_elsewhere,
    set_aside,
)
from fnostab.trial import StudySpec, TrialSpec

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
    memory only if asked; finished ones never, also where only MLflow remembers them. A trial that
    fails stops no other.

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
    record = study.spec(experiment)
    specs = study.trials(experiment, output / "datasets", arms=arms, seeds=seeds)
    device = next(iter(study.arms.values())).execution.device
    launcher = LocalLauncher(default_jobs(device) if jobs is None else jobs, device)
    store = open_store(tracking_uri)
    console.print(
        f"study {study.hash} ({study.profile} profile) in experiment {experiment} at {store.address}",
        highlight=False,
        soft_wrap=True,
    )
    _prepare(study, specs, console)
    folder = output / experiment / study.hash
    trials = _on_disk(record, specs, folder)
    _take_from_store(store, record, trials, retry_oom, console)

    with _terminable():
        study_run_id = ensure_study(store, record)
        uploader = Uploader(store, study_run_id)
        try:
            link_project_run(store, study_run_id)
            for trial in trials:
                if trial.run_elsewhere is None:
                    uploader.follow(trial.directory)
            uploader.start()
            _work_off(
                trials, launcher, uploader, retry_oom, console, title=f"{study.file.name} ({study.profile} profile)"
            )
        except BaseException as error:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            if unsent := _finish(store, study_run_id, status, uploader, trials):
                console.print(unsent, highlight=False, soft_wrap=True)
            raise
        status = "FINISHED" if all(trial.finished for trial in trials) else "FAILED"
        unsent = _finish(store, study_run_id, status, uploader, trials)
    return StudyRun(store, experiment, study_run_id, folder, trials, unsent)


def _work_off(
    trials: Sequence[TrialProgress],
    launcher: LocalLauncher,
    uploader: Uploader,
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
    with StudyView(title, trials, launcher.jobs, console) as view:
        try:
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
        except BaseException:
            try:
                console.print("ending the trials that run; the same command goes on where this one stopped")
            finally:
                launcher.cancel()
            raise
        view.update([], uploader.trouble)


def _on_disk(record: StudySpec, specs: Sequence[TrialSpec], folder: Path) -> list[TrialProgress]:
    """Write what is to be run beside the journals, and read those that there are.

    Raises:
        LaunchError: the folder can't be written.
        JournalError: a journal is damaged.
    """
    trials = [TrialProgress(spec, folder / f"{spec.arm}-{spec.seed}") for spec in specs]
    try:
        record.write(folder / "study.json")
        for trial in trials:
            trial.spec.write(trial.directory / "trial.json")
    except OSError as error:
        raise LaunchError(
            f"can't write {error.filename or folder}: {error.strerror}; mend that, or choose another --output"
        ) from error
    for trial in trials:
        trial.update()
    return trials


def _take_from_store(
    store: Store, record: StudySpec, trials: Sequence[TrialProgress], retry_oom: bool, console: Console
) -> None:
    """Take outcomes that only MLflow knows, and set aside its runs that came to none.

    Raises:
        LaunchError: a trial is at work in another folder.
    """
    of_key = {(trial.spec.arm, trial.spec.seed): trial for trial in trials}
    found = runs_elsewhere(store, record, {key: trial.first_ms for key, trial in of_key.items()})
    for run in found:
        of_key[run.arm, run.seed].update()  # another launcher may have started it here just now
    elsewhere = [run for run in found if of_key[run.arm, run.seed].first_ms != run.start_ms]
    for run in elsewhere:
        if run.at_work:
            raise LaunchError(
                f"{run.arm}-{run.seed} is at work in another folder as {run.owner} (MLflow run {run.run_id}): "
                "wait for it to end, or give that folder with --output"
            )
    n_aside = 0
    for run in elsewhere:
        trial = of_key[run.arm, run.seed]
        if run.outcome in TRAINING_OUTCOMES or (run.outcome is Outcome.OOM and not retry_oom):
            trial.outcome, trial.failure_step, trial.run_elsewhere = run.outcome, run.failure_step, run.run_id
        else:
            set_aside(store, run.run_id)
            n_aside += 1
    if n_aside:
        console.print(f"{n_aside} runs without a result, whose journals are not here, are set aside in MLflow")


def _prepare(study: Study, specs: Sequence[TrialSpec], console: Console) -> None:
    """Make the data sets that all arms share, and see that networks and probes can be used."""
    import torch  # here: it takes seconds

    from fnostab.data import prepare
    from fnostab.models import build_generator, check_generator
    from fnostab.physics.probe import make_probe

    for spec in {s.arm: s for s in specs}.values():
        if spec.config.execution.device == "cuda" and not torch.cuda.is_available():
            raise LaunchError("execution.device=cuda, but torch sees no GPU here: use auto or cpu, or mend the driver")
        check_generator(build_generator(spec.config.model), spec.config.data.N)
        make_probe(spec.config.data.probe, spec.config.data.N)
    shared = [s for s in specs if "data" not in s.config.vary]
    for spec in {s.config.data.model_dump_json(): s for s in shared}.values():
        started = time.monotonic()
        console.print("preparing the data set ...", end=" ")
        prepare(spec.config.data, spec.config.data_seed(spec.seed), spec.data_dir)
        console.print(f"{time.monotonic() - started:.1f} s")


def _finish(
    store: Store, study_run_id: str, status: str, uploader: Uploader, trials: Sequence[TrialProgress]
) -> str | None:
    """Send what is left and end the study's run; say why if that can't be done."""
    unsent = None
    uploader.stop()
    try:
        uploader.drain(DRAIN_S)
    except TrackingError as error:
        unsent = str(error)
    try:
        for trial in trials:
            if trial.unwritten and trial.outcome is not None:
                end_unwritten(store, trial.spec, trial.outcome, trial.reason or "")
        finish_study(store, study_run_id, status)
    except TrackingError as error:
        unsent = unsent or str(error)
    return unsent


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
