"""Find out from Slurm and MLflow which of a study's trials have run or are queued."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fnostab.errors import LaunchError
from fnostab.record.job_arrays import queued_jobs
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.plurals import counted
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import StudySpec
from fnostab.show.console import say
from fnostab.tracking import Store, reconcile, runs_elsewhere, set_aside


def close_abandoned(store: Store, experiment: str, output: Path, console: Console) -> None:
    """Close the orphaned runs of an experiment, and print a line if there were any.

    Raises:
        TrackingError: the store does not answer.
    """
    report = reconcile(store, output, experiment)
    if report.closed:
        runs = ", ".join(f"{run.name}: {run.outcome}" for run in report.closed)
        say(console, f"closed runs whose process is gone: {runs}")
    say(console, *(f"not closed: {line}" for line in report.refused))


def insist_on_no_jobs(folder: Path) -> None:
    """Refuse to train trials that are queued on a cluster.

    Raises:
        LaunchError: a study has jobs in a queue.
    """
    if jobs := queued_jobs(folder):
        raise LaunchError(
            f"{counted(len(jobs), 'trial')} of this study in Slurm's queue, such as {next(iter(jobs))}: follow "
            "the jobs with --launcher slurm, or end them with `fnostab cancel`"
        )


def take_from_store(
    store: Store, record: StudySpec, trials: Sequence[TrialProgress], retry_oom: bool, console: Console
) -> None:
    """Adopt outcomes that only MLflow has, and set aside its runs without an outcome.

    Raises:
        LaunchError: a trial is running in another folder.
    """
    of_key = {(trial.spec.arm, trial.spec.seed): trial for trial in trials}
    found = runs_elsewhere(store, record, {key: trial.first_ms for key, trial in of_key.items()})
    for run in found:
        of_key[run.arm, run.seed].update()  # another launcher may just have started it
    elsewhere = [run for run in found if of_key[run.arm, run.seed].first_ms != run.first_ms]
    for run in elsewhere:
        if run.running:
            raise LaunchError(
                f"{run.name} is running in another folder as {run.owner or 'an unnamed process'} "
                f"(MLflow run {run.run_id}): wait for it to end, or give that folder with --output"
            )
    n_aside = 0
    for run in elsewhere:
        trial = of_key[run.arm, run.seed]
        if run.outcome in TRAINING_OUTCOMES or (run.outcome is Outcome.OOM and not retry_oom):
            trial.outcome, trial.failure_step, trial.run_id = run.outcome, run.failure_step, run.run_id
        elif run.run_id is not None:
            set_aside(store, run.run_id)
            n_aside += 1
    if n_aside:
        say(console, f"set aside in MLflow: {counted(n_aside, 'run')} without a result or a journal here")
