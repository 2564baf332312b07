"""Find out, from journals and MLflow, which of a study's trials have run already."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fnostab.errors import LaunchError
from fnostab.record.ending import close_if_abandoned, judge_again
from fnostab.record.folders import STUDY_FILE, TRIAL_FILE
from fnostab.record.job_arrays import queued_jobs
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import StudySpec, TrialSpec
from fnostab.show.console import say
from fnostab.tracking import Store, reconcile, runs_elsewhere, set_aside

__all__ = ["close_abandoned", "extended", "insist_on_no_jobs", "other_study", "read_journals", "take_from_store"]


def close_abandoned(store: Store, experiment: str, output: Path, console: Console) -> None:
    """Close runs of an experiment whose process is gone; say so in a line if there were any.

    Raises:
        TrackingError: the store does not answer.
    """
    report = reconcile(store, output, experiment)
    if report.closed:
        runs = ", ".join(f"{run.name}: {run.outcome}" for run in report.closed)
        say(console, f"closed runs whose process is gone: {runs}")
    say(console, *(f"not closed: {line}" for line in report.refused))


def read_journals(record: StudySpec, trials: Sequence[TrialProgress], folder: Path) -> None:
    """Write what is to be run beside the journals, read those that there are, and close what was abandoned.

    Raises:
        LaunchError: the folder can't be written.
        JournalError: a journal is damaged, or can't be written.
    """
    changed = [trial for trial in trials if _has_other_rules(trial)]
    try:
        record.write(folder / STUDY_FILE)
        for trial in trials:
            trial.spec.write(trial.directory / TRIAL_FILE)
    except OSError as error:
        raise LaunchError(
            f"can't write {error.filename or folder}: {error.strerror or error}; mend that, or choose another --output"
        ) from error
    for trial in trials:
        trial.update()
        if trial.first_ms is not None and trial.outcome is None and close_if_abandoned(trial.directory):
            trial.update()
    for trial in changed:
        if trial.outcome in TRAINING_OUTCOMES:
            judge_again(trial.directory, trial.spec)
            trial.update()


def _has_other_rules(trial: TrialProgress) -> bool:
    """Whether a trial was judged by other rules than those of the study now: rules are no part of its identity."""
    path = trial.directory / TRIAL_FILE
    if not path.exists():
        return False
    earlier = TrialSpec.read(path)
    return (earlier.rules, earlier.judged) != (trial.spec.rules, trial.spec.judged)


def extended(record: StudySpec, folder: Path) -> StudySpec:
    """A study with the arms that its record in a folder has besides.

    Raises:
        LaunchError: that record is damaged.
    """
    path = folder / STUDY_FILE
    return record.extending(StudySpec.read(path)) if path.exists() else record


def other_study(record: StudySpec, folder: Path) -> str | None:
    """A line on an earlier study of the same name whose control, or code, is another; None if there is none."""
    if folder.exists():
        return None
    for path in sorted(folder.parent.glob(f"*/{STUDY_FILE}")):
        try:
            earlier = StudySpec.read(path)
        except LaunchError:
            continue
        if (earlier.task, earlier.name) == (record.task, record.name):
            return (
                f"this is a new study: its control, or its code, is not that of study {earlier.hash} of the same name"
            )
    return None


def insist_on_no_jobs(folder: Path) -> None:
    """Refuse to train here what a cluster has been asked to train.

    Raises:
        LaunchError: a study has jobs in a queue.
    """
    if jobs := queued_jobs(folder):
        raise LaunchError(
            f"{len(jobs)} trials of this study, as {next(iter(jobs))}, have jobs in Slurm's queue: follow them with "
            "--launcher slurm, or end them with `fnostab cancel`"
        )


def take_from_store(
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
    elsewhere = [run for run in found if of_key[run.arm, run.seed].first_ms != run.first_ms]
    for run in elsewhere:
        if run.running:
            raise LaunchError(
                f"{run.name} is at work in another folder as {run.owner or 'a process without a name yet'} "
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
        say(console, f"{n_aside} runs without a result, whose journals are not here, are set aside in MLflow")
