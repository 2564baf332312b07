"""A study with resolved settings: makes its record, and a trial for each arm and seed.

Layers of settings, of which later ones win: the task's own (its defaults, the profile, a policy), the study's
defaults, the study's settings for that profile, the arm's, and those of the command line.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fnostab.errors import ConfigError, LaunchError
from fnostab.gpus import count_gpus
from fnostab.record.folders import TRIAL_FILE, trial_folders
from fnostab.record.outcome_rules import OutcomeRules
from fnostab.record.progress import TrialProgress
from fnostab.record.same_settings import same_settings, same_settings_line
from fnostab.record.settings import NAME_RULE, digest, flatten, shown
from fnostab.record.trial import Metric, Name, Resources, StudySpec, TrialSpec
from fnostab.study.arms import Settings
from fnostab.study.file import StudyFile, insist_on_size, read_study_file
from fnostab.tasks.contract import Task
from fnostab.tasks.python_arguments import settings_of
from fnostab.tasks.registry import make_task

OF_THE_FILE = (  # what a record has as the study file gives it
    *("name", "asked_as", "description", "control", "roles", "rules", "smallest_effect", "lengths", "alpha"),
    *("follow_up", "follow_up_criteria", "knob", "stressed"),
)
SHARED = "datasets"  # in the output folder: data that trials of several studies share


class Study:
    """A study whose settings are all resolved and checked.

    Args:
        file: study file.
        profile: named layer of the task's settings; None for a task without profiles.
        overrides: settings that win over all others.
        task: task of the study; None for the one that the file names.

    Attributes:
        arms: resolved settings of each arm, flat.
        looks: seeds per arm at each planned look; empty if none are planned.

    Raises:
        FnostabError: an arm's settings are unknown, of the wrong type, or impossible together.
    """

    def __init__(
        self, file: StudyFile, profile: str | None, overrides: Mapping[str, Any] | None = None, task: Task | None = None
    ) -> None:
        self.file = file
        self.profile = profile
        self.overrides = flatten(overrides or {})
        self.looks: tuple[int, ...] = ()
        self.task = task or make_task(file.task_name, file)
        if file.knob in self.overrides:
            raise ConfigError(f"{file.name} sets {file.knob} itself: leave it out, or write a study of your own")
        if unknown := set(file.profiles) - set(self.task.profiles):
            accepted = ", ".join(self.task.profiles) or "none"
            raise ConfigError(f"{file.line_of('profiles')}profile {min(unknown)!r} is not known; accepted: {accepted}")
        self.arms: Mapping[str, Settings] = {arm: self._resolve(arm, overrides or {}) for arm in file.arms}
        self.task.check(self)

    @property
    def metric(self) -> Metric:
        """Metric that decides besides failures."""
        return self.file.metric or self.task.metric

    @cached_property
    def config_hashes(self) -> Mapping[str, str]:
        """Hash of each arm's identity; arms with the same hash train alike."""
        identities = {arm: self.task.identity(settings) for arm, settings in self.arms.items()}
        return {arm: digest([own, arm] if self.task.goes_by_arm else own) for arm, own in identities.items()}

    @cached_property
    def hash(self) -> str:
        """Hash of task, name and control, the study's identity: the same study resumes; arms and seeds extend it."""
        control = self.file.control
        return digest([self.task.name, self.file.name, control, self.config_hashes[control]])

    def twins(self, arms: Sequence[str] = ()) -> list[str]:
        """Write a line for each arm, of ``arms`` or of all, that repeats another and so is not compared."""
        hashes = {arm: self.config_hashes[arm] for arm in arms or self.arms}
        return [same_settings_line(*pair) for pair in same_settings(hashes, self.file.control).items()]

    @property
    def resources(self) -> Resources:
        """Resources that a trial needs, taken from control for all arms."""
        return self.task.resources(self.arms[self.file.control])

    @property
    def described(self) -> str:
        """Hash and profile, as a part of a line."""
        return f"{self.hash} ({self.profile} profile)" if self.profile else self.hash

    def spec(self, experiment: str, trials: Sequence[TrialProgress] = ()) -> StudySpec:
        """Make the record of this study in ``experiment``; ``trials`` are those that were asked for.

        Raises:
            ConfigError: the experiment's name is not accepted.
        """
        try:
            TypeAdapter(Name).validate_python(experiment)
        except ValidationError:
            raise ConfigError(f"experiment={shown(experiment)} is not accepted: {NAME_RULE}, 200 at most") from None
        file, task = self.file, self.task
        asked = [(trial.spec.arm, trial.spec.seed) for trial in trials]
        return StudySpec(
            **{name: getattr(file, name) for name in OF_THE_FILE},
            task=task.name,
            hash=self.hash,
            experiment=experiment,
            profile=self.profile,
            arms=self.arms,
            config_hashes=self.config_hashes,
            seeds={name: tuple(sorted(seed for arm, seed in asked if arm == name)) for name in dict(asked)},
            metric=self.metric,
            judged={arm: task.judged(settings, self.metric) for arm, settings in self.arms.items()},
            measures=task.quality(self) if file.measures is None else file.measures,
            margin=task.margin if file.margin is None else file.margin,
            size=task.size(self),
            charts=task.charts,
            picture=task.picture,
            caveats=task.caveats(self.profile),
            same_for_all=task.same_for_all(self),
            next_of=task.next_of(self),
            overrides=self.overrides,
            looks=self.looks,
        )

    def folder(self, output: Path, experiment: str) -> Path:
        """Return the folder of the study's journals."""
        return output.absolute() / experiment / self.hash

    def trials(
        self, experiment: str, output: Path, *, arms: Sequence[str] = (), seeds: Sequence[int] = ()
    ) -> list[TrialProgress]:
        """Make a trial for each seed and arm, seed by seed, so that an interrupted study is still balanced.

        The task's notices about the arms are logged as warnings.

        Raises:
            ConfigError: there is no such arm, or there are too many trials.
        """
        self.file.insist_on_arms(arms)
        own = self.file.seeds
        chosen = seeds or (range(own) if isinstance(own, int) else own)
        insist_on_size(len(arms or self.arms), len(chosen))
        for line in self.task.notices(self, list(arms or self.arms)):
            logging.getLogger(__name__).warning("%s", line)
        folder = self.folder(output, experiment)
        shared = str(output.absolute() / SHARED)
        return [
            self._trial(experiment, arm, seed, trial_folder(folder, arm, self.config_hashes[arm], seed), shared)
            for seed in chosen
            for arm in (arms or self.arms)
        ]

    def _trial(self, experiment: str, arm: str, seed: int, directory: Path, shared: str) -> TrialProgress:
        settings, task, place = self.arms[arm], self.task, self.task.working_directory()
        spec = TrialSpec(
            task=task.name,
            experiment=experiment,
            study=self.file.name,
            study_hash=self.hash,
            profile=self.profile,
            arm=arm,
            seed=seed,
            settings=settings,
            config_hash=self.config_hashes[arm],
            metric=self.metric,
            judged=task.judged(settings, self.metric),
            rules=self._rules(settings),
            after_failure=task.after_failure(settings),
            resources=task.resources(settings),
            argv=task.argv(settings, arm, seed, directory),
            working_directory=None if place is None else str(place),
            shared_dir=shared,
        )
        return TrialProgress(spec, directory)

    def _rules(self, settings: Settings) -> OutcomeRules:
        """Make the failure rules: the task's, overridden by the study file's, applied to the metric's ``of`` value."""
        said = {} if self.file.outcome is None else self.file.outcome.model_dump(exclude_unset=True)
        of = {"of": self.metric.of or "best"}
        return OutcomeRules.model_validate(self.task.rules(settings).model_dump() | said | of)

    def _resolve(self, arm: str, overrides: Mapping[str, Any]) -> Settings:
        layers = [flatten(layer) for layer in (*self.file.layers(arm, self.profile), overrides)]
        try:
            return self.task.resolve(layers, self.profile)
        except ConfigError as error:
            given = any(f"{name}.".startswith(f"{error.setting}.") for name in flatten(overrides) if error.setting)
            place = "" if given else self.file.place(arm, self.profile, error.setting)
            raise type(error)(f"{place}arm {arm}: {error}", error.setting) from None


def load_study(
    name: str | Path,
    profile: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    *,
    epochs: int | None = None,
    gpus: bool | None = None,
) -> Study:
    """Load a built-in study by name, or one of your own by its path.

    Args:
        name: name of the study, or path of its YAML file.
        profile: named layer of the task's settings; ``auto`` lets the task choose.
        overrides: settings that win over all others.
        epochs: epochs of every trial; None for the number in the settings.
        gpus: whether trials will have a GPU; None checks this machine.

    Raises:
        ConfigError: there is no such study or profile, or the study is not accepted.
    """
    overrides = settings_of("load_study", "overrides", {} if overrides is None else overrides)
    file = read_study_file(str(name))
    task = make_task(file.task_name, file)
    chosen = task.choose_profile(profile, gpus=bool(count_gpus()) if gpus is None else gpus)
    of_epochs = {} if epochs is None else {task.epochs: epochs}
    return Study(file, chosen, of_epochs | overrides, task)


def trial_folder(folder: Path, arm: str, config_hash: str, seed: int) -> Path:
    """Return a trial's folder, as ``control-0``; with a hash appended if that holds a trial with other settings.

    Raises:
        LaunchError: the record of the trial in that folder is damaged, or of an earlier version.
    """
    plain, beside = trial_folders(folder, arm, seed, config_hash)
    if not (plain / TRIAL_FILE).exists():
        return plain
    try:
        same = TrialSpec.read(plain / TRIAL_FILE).config_hash == config_hash
    except LaunchError as error:
        if isinstance(error.__cause__, ConfigError):  # damaged; the message says what to do
            raise
        raise LaunchError(
            f"{error}; a study of an earlier version can't be continued: choose another --output"
        ) from error
    return plain if same else beside
