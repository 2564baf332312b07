"""Read the folder of a study before resuming it: its record, its journals and abandoned trials."""

from collections.abc import Sequence
from pathlib import Path

from fnostab.errors import LaunchError
from fnostab.record.ending import CANT_BE_JUDGED, close_if_abandoned, judge_again
from fnostab.record.folders import STUDY_FILE, TRIAL_FILE
from fnostab.record.outcomes import TRAINING_OUTCOMES
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import StudySpec, TrialSpec


def read_journals(record: StudySpec, trials: Sequence[TrialProgress], folder: Path) -> None:
    """Write the trials' specifications, read existing journals, and close abandoned trials.

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
            f"can't write {error.filename or folder}: {error.strerror or error}; fix that, or choose another output "
            "folder (--output)"
        ) from error
    for trial in trials:
        trial.update()
        if trial.first_ms is not None and trial.outcome is None and close_if_abandoned(trial.directory):
            trial.update()
    for trial in changed:
        if trial.outcome in TRAINING_OUTCOMES or (trial.reason or "").startswith(CANT_BE_JUDGED):
            judge_again(trial.directory, trial.spec)
            trial.update()


def _has_other_rules(trial: TrialProgress) -> bool:
    """Whether a trial was judged by other rules than the study's current ones (rules are not part of its identity)."""
    path = trial.directory / TRIAL_FILE
    if not path.exists():
        return False
    earlier = TrialSpec.read(path)
    return (earlier.rules, earlier.judged) != (trial.spec.rules, trial.spec.judged)


def extended(record: StudySpec, folder: Path) -> StudySpec:
    """Extend a study by the additional arms of its record in a folder.

    Raises:
        LaunchError: that record is damaged.
    """
    path = folder / STUDY_FILE
    return record.extending(StudySpec.read(path)) if path.exists() else record


def other_study(record: StudySpec, folder: Path) -> str | None:
    """Message on an earlier study of the same name with another control or other code; None without one."""
    if folder.exists():
        return None
    for path in sorted(folder.parent.glob(f"*/{STUDY_FILE}")):
        try:
            earlier = StudySpec.read(path)
        except LaunchError:
            continue
        if (earlier.task, earlier.name) == (record.task, record.name):
            return f"this is a new study: its control or its code differs from study {earlier.hash} of the same name"
    return None
