"""Read the state of a study that another process runs, from its journals or from its store."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fnostab.errors import FnostabError
from fnostab.record.attempt import is_alive
from fnostab.record.folders import STUDY_FILE, TRIAL_FILE
from fnostab.record.job_arrays import queued_jobs
from fnostab.record.lines import FILE_NAME
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.progress import TrialProgress, TrialState
from fnostab.record.safe_files import changed_s
from fnostab.record.slurm_jobs import WAITING
from fnostab.record.trial import StudySpec, TrialSpec
from fnostab.tracking import StudyWatch

QUIET_S = 60.0  # without a new record, after which a study without processes or jobs has ended
SHARE_OF_STORE = 0.2  # largest share of the time for which queries keep the store busy
Key = tuple[str, int]  # arm, seed


class Journals:
    """The trials of a study on disk.

    Attributes:
        unreadable: error message of each trial whose records can't be read, by the name of its folder.

    Raises:
        LaunchError: ``study.json`` is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = StudySpec.read(folder / STUDY_FILE)
        self._trials: dict[Key, TrialProgress] = {}
        self._directories: set[str] = set()
        self.unreadable: dict[str, str] = {}

    def read(self, known: Mapping[Key, Outcome]) -> dict[Key, TrialProgress]:
        """Read the states of all trials, but for unread ones whose ``known`` outcome is final."""
        self._find()
        jobs = queued_jobs(self.folder)
        states = {}
        for key, trial in self._trials.items():
            if trial.step is None and known.get(key) in TRAINING_OUTCOMES:
                continue
            if trial.outcome not in TRAINING_OUTCOMES:  # those are final
                with self._named(trial.directory.name):
                    trial.update()
            job = jobs.get(trial.name)
            trial.queued = job in WAITING
            trial.running = self._is_running(trial) if job is None else not trial.queued
            states[key] = trial
        return states

    def has_jobs(self) -> bool:
        """Whether jobs of the study's trials wait or run in a cluster's queue."""
        return bool(queued_jobs(self.folder))

    def ended(self) -> str | None:
        """Return how the study ended by its journals and jobs, "FINISHED" or "gone"; None while it runs."""
        trials = self.read({}).values()
        if any(trial.running for trial in trials) or self.has_jobs():
            return None
        if all(trial.settled in (*TRAINING_OUTCOMES, Outcome.OOM) for trial in trials):
            return "FINISHED"
        return "gone" if self.quiet_s() > QUIET_S else None

    def quiet_s(self) -> float:
        """Seconds since the last record was written."""
        paths = [self.folder / STUDY_FILE, *(t.directory / FILE_NAME for t in self._trials.values())]
        return time.time() - max(map(changed_s, paths))

    def _find(self) -> None:
        names = {path.parent.name for path in self.folder.glob("*/trial.json")} - self._directories
        for name in sorted(names):
            with self._named(name):
                spec = TrialSpec.read(self.folder / name / TRIAL_FILE)
                self._trials[spec.arm, spec.seed] = TrialProgress(spec, self.folder / name)
        self._directories |= names

    @contextmanager
    def _named(self, trial: str) -> Iterator[None]:
        try:
            yield
        except FnostabError as error:
            self.unreadable[trial] = str(error)

    def _is_running(self, trial: TrialProgress) -> bool:
        if trial.outcome is not None or trial.first_ms is None:
            return False
        last_sign_s = changed_s(trial.directory / FILE_NAME)
        if trial.owner is None:  # the owner is written right after the first record
            return time.time() - last_sign_s < QUIET_S
        return is_alive(trial.owner, None, last_sign_s)


class Records:
    """Records of a study in a store, read in a background thread so that Ctrl-C and journals need not wait for it.

    Attributes:
        trials: states of the trials at the last read.
        ended: how the study ended, as `StudyWatch.ended`; None while it runs.
        trouble: why the store could not be read; None if it could.
    """

    def __init__(self, watch: StudyWatch) -> None:
        self._watch = watch
        self.trials: list[TrialState] = []
        self.ended: str | None = None
        self.trouble: str | None = None

    def poll(self) -> float:
        """Read once; return how many seconds that took.

        Raises:
            TrackingError: the store does not answer, or a record in it can't be read.
        """
        started = time.monotonic()
        ended = self._watch.ended()  # read first and set last: whoever sees the end then sees all trials
        self.trials = self._watch.poll()
        self.ended = ended
        return time.monotonic() - started

    def start(self, interval_s: float) -> None:
        """Read every ``interval_s`` seconds or less often, until this process ends."""
        threading.Thread(target=self._run, args=(interval_s,), name="fnostab-watch", daemon=True).start()

    def _run(self, interval_s: float) -> None:
        took_s = 0.0
        while True:
            time.sleep(max(interval_s, took_s / SHARE_OF_STORE))
            try:
                took_s = self.poll()
                self.trouble = None
            except FnostabError as error:
                self.trouble = str(error)


def newest_folder(output: Path, experiment: str | None) -> Path | None:
    """Find the folder of the study that was started last, by the time of its study.json; None without a study."""
    found = list((output / experiment).glob("*/study.json") if experiment else output.glob("*/*/study.json"))
    return max(found, key=changed_s).parent if found else None
