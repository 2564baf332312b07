"""A study that hands out its missing trials to a loop of the user's own, and judges them."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fnostab.asking.handed_out import Trial, let_go_of_last
from fnostab.errors import DecisionError, LaunchError, os_errors_as
from fnostab.launch.resuming import extended, other_study, read_journals
from fnostab.record.attempt import is_being_written
from fnostab.record.progress import TrialProgress
from fnostab.record.recorder import RANK_VARIABLES
from fnostab.record.safe_files import HeldElsewhereError, held
from fnostab.record.trial import StudySpec
from fnostab.study.file import StudyFile, read_study_file, study_file_of
from fnostab.study.study import Study as ResolvedStudy
from fnostab.tasks.ask import Ask
from fnostab.tasks.python_arguments import not_accepted, seeds_of, study_values
from fnostab.tracking.environment import settled

if TYPE_CHECKING:
    from fnostab.report.case import Case

LOCK_NAME = "ask.lock"  # in a study's folder; locked while a trial is chosen
WAIT_S = 60.0
_log = logging.getLogger("fnostab.asking")


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

    def __iter__(self) -> Iterator[Trial]:
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
            trial.let_go()
            if not trial.begun:
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
            from fnostab.report.named_studies import StoredStudies
            from fnostab.report.stored_studies import judge_and_record
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

    def _take(self, progress: TrialProgress) -> Trial | None:
        """Lock a trial's journal and return the trial; None if it is finished or another process trains it."""
        let_go_of_last()
        with self._held():
            progress.update()
            if progress.finished or is_being_written(progress.directory):
                return None
            return Trial(progress, self._task.as_written(progress.spec.settings))

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Lock the study's folder, so that no other process chooses trials of it."""
        try:
            with os_errors_as(LaunchError, f"can't write {self.folder}", "choose another output="):
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / LOCK_NAME).touch()
                with held(self.folder / LOCK_NAME, WAIT_S):
                    yield
        except HeldElsewhereError as error:
            raise LaunchError(f"{error} for more than {WAIT_S:.0f} s: end that process") from None
