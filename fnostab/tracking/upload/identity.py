"""Identify the run that a journal's directory belongs to.

A trial's directory holds ``trial.json``; that of a user's own script, outside any study, holds ``live.json``.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fnostab.errors import ConfigError, JournalError
from fnostab.record import names
from fnostab.record.folders import LIVE_FILE, TRIAL_FILE
from fnostab.record.outcomes import Outcome
from fnostab.record.safe_files import write_whole
from fnostab.record.settings import text_of
from fnostab.record.trial import TrialSpec
from fnostab.tracking.environment import own_tags
from fnostab.tracking.upload.batch import clean

_TRIAL_ID = re.compile(r"[\w.-]{1,250}")


@dataclass(frozen=True)
class RunIdentity:
    """Identity of a run, which is found by its ``trial_id`` within ``experiment``, or else created."""

    experiment: str
    trial_id: str
    run_name: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LiveRun:
    """Identity of a run outside any study."""

    experiment: str
    run_name: str
    trial_id: str

    def write(self, directory: Path) -> None:
        """Write ``live.json``."""
        write_whole(directory / LIVE_FILE, json.dumps(asdict(self), indent=2) + "\n")


def run_identity(directory: Path, study_run_id: str | None) -> RunIdentity:
    """Read the identity of the run that the journal in ``directory`` is sent to.

    Raises:
        LaunchError: ``trial.json`` is damaged.
        JournalError: there is neither that nor a readable ``live.json``, or the trial's ID is not valid.
    """
    if (directory / TRIAL_FILE).exists():
        return _of_trial(TrialSpec.read(directory / TRIAL_FILE), study_run_id)
    try:
        values = json.loads(text_of(directory / LIVE_FILE, record=True))
        live = LiveRun(**values)
        if not all(isinstance(value, str) and value.isprintable() and value for value in values.values()):
            raise TypeError("a value is not a line of text")
    except (OSError, ValueError, TypeError, RecursionError, ConfigError) as error:
        raise JournalError(
            f"{directory} holds neither a {TRIAL_FILE} nor a {LIVE_FILE} that can be read: restore it from a copy, or "
            "run its study again, which writes it"
        ) from error
    return _identity(live.experiment, live.trial_id, live.run_name, own_tags(names.KIND_LIVE))


def _identity(experiment: str, trial_id: str, run_name: str, tags: Mapping[str, str]) -> RunIdentity:
    if not _TRIAL_ID.fullmatch(trial_id):  # it is quoted in queries to the store
        raise JournalError(f"trial {trial_id[:80]!r}: expected a name of letters, digits, points and dashes")
    tags = {name: clean(value) for name, value in tags.items()} | {names.TRIAL_ID: trial_id}
    return RunIdentity(experiment, trial_id, run_name, tags)


def _of_trial(spec: TrialSpec, study_run_id: str | None) -> RunIdentity:
    tags = own_tags(names.KIND_TRIAL) | {
        names.STUDY: spec.study,
        names.STUDY_HASH: spec.study_hash,
        names.ARM: spec.arm,
        names.SEED: str(spec.seed),
        names.TASK: spec.task,
        **({names.PROFILE: spec.profile} if spec.profile else {}),
        names.CONFIG_HASH: spec.config_hash,
        names.SOURCE: f"fnostab run {spec.study}" if spec.argv is None else shlex.join(spec.argv),
        names.SHORT_ARM: spec.arm,
        names.SHORT_SEED: str(spec.seed),
        names.OUTCOME: str(Outcome.RUNNING),
    }
    if study_run_id is not None:
        tags[names.PARENT_RUN] = study_run_id
    return _identity(spec.experiment, spec.trial_id, spec.name, tags)
