"""Watch a study that another process runs, from its journals if they are available, otherwise from its store.

Nothing is written and no journal is locked, so that watching never disturbs the study.
"""

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fnostab.errors import ConfigError, TrackingError
from fnostab.record.folders import STUDY_FILE
from fnostab.record.progress import TrialState
from fnostab.record.safe_files import changed_s
from fnostab.record.trial import ASK, StudySpec
from fnostab.show.console import say
from fnostab.show.next_commands import judge_or_run, run_words
from fnostab.show.sources import Journals, Records, newest_folder
from fnostab.show.state import StudyState
from fnostab.show.view import Display, snapshot
from fnostab.tracking import (
    Store,
    StudyWatch,
    existing_store,
    find_experiment,
    find_study,
    newest_experiment,
    newest_study,
)

OUTPUT = Path("outputs")  # where `fnostab run` writes unless it is told otherwise
ENDINGS = {
    "KILLED": "it was interrupted; the same `fnostab run` command resumes it",
    "FAILED": "some trials ended without a result; the same `fnostab run` command retries them or says how",
    "gone": "the process that ran it is gone; the same `fnostab run` command resumes it",
}
OWN_LOOP = "trials of your own loop have no result; the same loop resumes them"


def watch_study(
    experiment: str | None,
    *,
    output: Path,
    tracking_uri: str | None = None,
    interval_s: float = 1.0,
    once: bool = False,
    console: Console,
) -> None:
    """Show a study, the newest or that of an experiment, until it ends; ``once`` prints its current state and returns.

    Raises:
        FnostabError: there is no such study, or its store does not answer.
        KeyboardInterrupt: the user pressed Ctrl-C to stop watching.
    """
    watched = _attach(experiment, output, tracking_uri)
    say(console, f"study {watched.spec.hash} in experiment {watched.spec.experiment}, {watched.source}")
    state = watched.state()
    ended = watched.ended()
    if once or ended:
        snapshot(state, console)
    else:
        if watched.records is not None:
            watched.records.start(interval_s)
        with Display(console, {trial.name for trial in state.trials if trial.settled is not None}) as display:
            while not (ended := watched.ended()):
                display.update(watched.state())
                time.sleep(interval_s)
            state = watched.state()
            display.update(state)
    if ended:
        spec, at = watched.spec, ["--tracking-uri", tracking_uri] if tracking_uri else []
        if ended not in ENDINGS:
            say(console, "the study has ended")
            unsent = spec.task == ASK and watched.records is None  # a loop's trials are sent by its `Study.decide`
            words = judge_or_run(spec, {trial.arm for trial in state.trials})
            if spec.task == ASK:  # no command runs its trials
                words = ["sync", str(output)] if unsent else ["decide", "--experiment", spec.experiment]
        else:
            say(console, f"the study has ended: {OWN_LOOP if spec.task == ASK else ENDINGS[ended]}")
            if spec.task == ASK:
                return
            words = _run_again(spec, state.trials)
        words += ["--output", str(output)] if words[0] == "run" and output != OUTPUT else []
        say(console, f"next: {shlex.join(['fnostab', *words, *at])}")


def _run_again(spec: StudySpec, trials: Sequence[TrialState]) -> list[str]:
    """Write the arguments of `fnostab` that run those trials of an ended study that have no result."""
    finished = {(trial.arm, trial.seed) for trial in trials if trial.finished}
    left = {arm: of_arm for arm, of_arm in spec.seeds.items() if any((arm, seed) not in finished for seed in of_arm)}
    seeds = sorted({seed for of_arm in left.values() for seed in of_arm})
    return run_words(spec, arms=left, seeds=seeds)


@dataclass
class _Watched:
    """A study with the sources of its state: journals, records in a store, or both."""

    spec: StudySpec
    source: str
    journals: Journals | None
    records: Records | None
    trouble: str | None = None

    def __post_init__(self) -> None:
        self._jobs = 1

    def state(self) -> StudyState:
        """Read the state of the study; a trial's journal takes precedence over the store, which is updated later."""
        rows = {(t.arm, t.seed): t for t in self.records.trials} if self.records else {}
        known = {key: row.outcome for key, row in rows.items() if row.outcome is not None}
        found = self.journals.read(known) if self.journals else {}
        written = {key: trial for key, trial in found.items() if trial.seconds is not None or key not in rows}
        trials = rows | written
        arms = {arm: n for n, arm in enumerate(self.spec.arms)}
        order = sorted(trials, key=lambda key: (arms.get(key[0], len(arms)), *key))
        self._jobs = max(self._jobs, sum(trial.running for trial in trials.values()))
        unreadable = next(iter(self.journals.unreadable.values()), None) if self.journals else None
        trouble = self.trouble or (self.records.trouble if self.records else None) or unreadable
        title = f"{self.spec.name} ({self.spec.profile} profile)" if self.spec.profile else self.spec.name
        states = tuple(trials[key] for key in order)
        return StudyState(title, states, self._jobs, complete=self.journals is not None, trouble=trouble)

    def ended(self) -> str | None:
        """Return how the study ended, as MLflow's status or "gone"; None while it runs."""
        if self.journals is not None and self.journals.has_jobs():
            return None  # even if the process that submitted them has ended
        if self.records is not None and not (self.records.trouble and self.journals):
            return self.records.ended
        return "gone" if self.journals is None else self.journals.ended()


def _attach(experiment: str | None, output: Path, tracking_uri: str | None) -> _Watched:
    """Find the study that started last, on disk or in the store.

    Raises:
        FnostabError: there is no study in either.
    """
    if experiment is not None and not re.fullmatch(r"[^/\\]+", experiment):
        raise ConfigError(f"experiment={experiment!r} is not accepted: give a name, as in `fnostab watch stage_a`")
    folder = newest_folder(output, experiment)
    try:
        store = existing_store(tracking_uri)
        stored = _stored(store, experiment, optional=folder is not None)
    except TrackingError as error:
        if folder is None:
            which = "no journals" if experiment is None else f"no journals of {experiment}"
            raise TrackingError(
                f"{error} (and {which} are under {output.absolute()}: name their folder with --output)"
            ) from error
        return _Watched(Journals(folder).spec, f"journals in {folder}", Journals(folder), None, f"no records: {error}")
    if folder is not None:
        journals = Journals(folder)
        started_s = changed_s(folder / STUDY_FILE)
        mine = (journals.spec.experiment, journals.spec.hash)
        if stored is None or (stored[1].experiment, stored[1].hash) == mine or stored[2] <= started_s:
            return _Watched(journals.spec, f"journals in {folder}", journals, _records_of(store, journals.spec))
    assert stored is not None  # `_stored` raises where a study is not optional
    identity, spec, _ = stored
    records = Records(StudyWatch(store, identity[0], spec.hash, identity[1]))
    records.poll()
    return _Watched(spec, f"records at {store.address}", None, records)


def _records_of(store: Store, spec: StudySpec) -> Records | None:
    """Read a study's records from the store, beside its journals; None if the store does not have the study."""
    try:
        ids = find_study(store, spec.experiment, spec.hash)
        if ids is None:
            return None
        records = Records(StudyWatch(store, ids[0], spec.hash, ids[1]))
    except TrackingError:
        return None  # the journals are enough
    try:
        records.poll()
    except TrackingError as error:
        records.trouble = str(error)
    return records


def _stored(store: Store, experiment: str | None, *, optional: bool) -> tuple[tuple[str, str], StudySpec, float] | None:
    """Find a study in the store: ids of its experiment and run, its record, and its start (Unix time, s)."""
    try:
        name = experiment or newest_experiment(store)
        experiment_id = find_experiment(store, name)
        record = newest_study(store, experiment_id)
    except TrackingError:
        if optional:
            return None
        raise
    return (experiment_id, record.run_id), record.spec, record.start_ms / 1000
