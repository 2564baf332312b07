"""Read a study from YAML, with errors that name the line."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from fnostab.errors import ConfigError
from fnostab.record.outcome_rules import Bound, OutcomeRules
from fnostab.record.settings import Frozen, explain, place_of, read_yaml, shown, suggestion, text_of
from fnostab.record.trial import FollowUpCriterion, Measure, Metric, Name
from fnostab.study.arms import NotAcceptedError, Settings, expanded, knob_of
from fnostab.study.limits import MOST_SEEDS, MOST_TRIALS
from fnostab.tasks.registry import built_in_studies, make_task, task_names

PositiveNumber = Annotated[float, Field(gt=0)]
Knob = dict[str, Annotated[list[PositiveNumber], Field(min_length=2)]]


class OutcomeSection(Frozen):
    """Section ``outcome`` of a study file: the failure rules."""

    baseline: float | None = None
    failed: Bound | None = None
    collapsed: dict[str, Bound] = Field(default={})
    stagnated: dict[str, Bound] = Field(default={})


class StudyFile(Frozen):
    """A study file, with inherited settings and grids of its arms written out."""

    task: str | None = None  # task that its trials train, by name
    command: str | None = None  # or a program that they start: words with {placeholders}
    code: list[str] = Field(default=[])  # globs of further files that belong to the program
    after_failure: Literal["stop", "continue"] = "stop"  # whether a program is told to stop when it has failed
    name: Name  # name of the study, and of its MLflow experiment
    description: str = ""  # the question, in a sentence or two
    control: str  # the arm that the others are compared with
    arms: dict[Name, Settings] = Field(min_length=1)  # settings of each arm that differ from the defaults
    roles: dict[Literal["architecture", "clipping"], str] = Field(default={})  # the arms that GOLD and SILVER are about
    metric: Metric | None = None  # by which trials without a failure are compared; null: the task's
    margin: Annotated[float, Field(ge=0)] | None = None  # how much worse than control counts as no worse
    measures: dict[str, Measure] | None = None  # further measures of quality; null: the task's
    outcome: OutcomeSection | None = None  # rules of failures
    lengths: Literal["equal", "free"] = "equal"  # whether arms must run the same number of steps
    smallest_effect: Annotated[float, Field(gt=0, lt=1)] = 0.2  # reduction of the failure rate worth having
    follow_up: str | None = None  # study that comes after this one
    follow_up_criteria: list[FollowUpCriterion] = Field(default=[])  # further criteria to meet in that study
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05  # one-sided significance level
    seeds: Annotated[int, Field(gt=0)] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = 10
    defaults: Settings = Field(default={})  # settings of all arms
    profiles: dict[str, Settings] = Field(default={})  # settings of all arms, by profile
    stress: Knob = Field(default={})  # setting that a stress study varies, with its values from easy to hard

    _source: str = PrivateAttr("")
    _lines: dict[str, int] = PrivateAttr(default_factory=dict)  # by dotted place in the file
    _stressed: dict[str, dict[str, float]] = PrivateAttr(default_factory=dict)  # arm -> its names, with their values
    _written: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)  # the arms that an arm's settings are from

    @field_validator("metric", mode="before")
    @classmethod
    def _by_name(cls, metric: Any) -> Any:
        return {"name": metric} if isinstance(metric, str) else metric

    @field_validator("seeds", mode="before")
    @classmethod
    def _are_numbers(cls, seeds: Any) -> Any:
        given = seeds if isinstance(seeds, list) else [seeds]
        if not given or any(isinstance(n, bool) or not isinstance(n, int | float) for n in given):
            raise ValueError(f"{shown(seeds)} is not accepted: expected their number, as 10, or a list, as [0, 3, 5]")
        return seeds

    @field_validator("seeds")
    @classmethod
    def _are_not_too_many(cls, seeds: int | list[int]) -> int | list[int]:
        count = seeds if isinstance(seeds, int) else len(seeds)
        if count > MOST_SEEDS:
            raise ValueError(f"{count:,} are not accepted; a study has at most {MOST_SEEDS:,}")
        return seeds

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.task is not None and self.command is not None:
            raise ValueError("expected one of task and command, got both")
        if self.code and self.command is None:
            raise ValueError("code: names the files of a command; leave it out")
        if self.after_failure != "stop" and self.command is None:
            raise ValueError(
                "after_failure applies to a command; the built-in task has the setting monitor.after_failure"
            )
        if self.follow_up_criteria and self.follow_up is None:
            raise ValueError(
                "follow_up_criteria judge the study that follows this one: name it here, as in "
                "follow_up: stage_b, or move them to the file of the study before it"
            )
        if isinstance(self.seeds, list) and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={self.seeds} is not accepted: a list without repetition, such as [0, 3, 5]")
        for what, arm in [("control", self.control), *self.roles.items()]:
            if arm not in self.arms:
                raise ValueError(
                    f"{what}: no arm {shown(arm)}{suggestion(arm, self.arms)}; arms: {', '.join(self.arms)}"
                )
        try:
            insist_on_size(len(self.arms), self.seeds if isinstance(self.seeds, int) else len(self.seeds))
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def knob(self) -> str | None:
        """The setting that a stress study varies; None for other studies."""
        return next(iter(self.stress), None)

    @property
    def stressed(self) -> Mapping[str, Mapping[str, float]]:
        """Arms of a stress study as written: for each, the names under which it runs, with the knob's values."""
        return self._stressed

    @property
    def folder(self) -> Path:
        """Folder of the file; the working directory for a built-in one."""
        return Path(self._source).absolute().parent

    @property
    def rules(self) -> OutcomeRules:
        """Outcome rules that the file sets, with defaults for the rest."""
        return OutcomeRules(**dict(self.outcome)) if self.outcome else OutcomeRules()

    def layers(self, arm: str, profile: str | None) -> tuple[Settings, ...]:
        """Layers of settings of an arm; later ones win."""
        return self.defaults, self.profiles.get(profile or "", {}), self.arms[arm]

    @property
    def asked_as(self) -> str:
        """Argument of `fnostab run` for the study: the path of a file, or the name of a built-in study."""
        return self.name if self._source == f"{self.name}.yaml" and self.name in built_in_studies() else self._source

    def insist_on_arms(self, arms: Iterable[str]) -> None:
        """Raise ConfigError if the study has no arm of one of these names."""
        for arm in arms:
            if arm not in self.arms:
                similar = suggestion(arm, self.arms)
                raise ConfigError(f"{self.name} has no arm {shown(arm)}{similar}; arms: {', '.join(self.arms)}")

    def insist_on_count(self, seeds: int) -> None:
        """Raise ConfigError if a count of seeds is a seed that the study lists, and was probably meant as that one."""
        if not isinstance(self.seeds, int) and seeds in self.seeds and not set(range(seeds)) <= set(self.seeds):
            raise ConfigError(
                f"--seeds {seeds} means {seeds} seeds, 0 to {seeds - 1}, not all of which {self.name} lists; "
                f"for seed {seeds} alone write --seeds {seeds}, with a comma after it"
            )

    def with_defaults(self) -> Self:
        """Return a copy in which an unset metric, measures and margin are those of the task, if the file names one."""
        given: dict[str, Any] = {"metric": Metric(name="val/loss"), "measures": {}, "margin": None}
        if self.task is not None:
            task = make_task(self.task)
            given = {name: getattr(task, name) for name in given}
        return self.model_copy(update={name: value for name, value in given.items() if getattr(self, name) is None})

    @property
    def task_name(self) -> str:
        """Name of the task that trains the trials.

        Raises:
            ConfigError: the file names none, which is only accepted for judging a table.
        """
        if self.command is None and self.task is None:
            named = " or ".join(f"task: {name}" for name in task_names() if name != "command")
            raise ConfigError(f"{self._source}: expected {named}, or command: python train.py --seed {{seed}}")
        return self.task or "command"

    def line_of(self, place: str) -> str:
        """Find the line of a dotted name in the file, as ``my.yaml, line 7: ``."""
        return f"{_at(self._source, self._lines, place)}: "

    def place(self, arm: str, profile: str | None, setting: str) -> str:
        """Find the line of an arm's setting in the file, as ``my.yaml, line 7: ``; without one, of the arm."""
        written = self._written.get(arm, ())
        parts = [f"arms.{each}{part}" for each in written for part in ("", ".grid")]
        for part in (*parts, f"profiles.{profile}", "defaults"):
            for place, line in self._lines.items():
                if setting and f"{place}.".startswith(f"{part}.{setting}."):
                    return f"{self._source}, line {line}: "
        return self.line_of(f"arms.{written[0]}") if written else ""


def insist_on_size(arms: int, seeds: int) -> None:
    """Raise ConfigError if so many arms and seeds are more trials than a study may have."""
    if arms * seeds > MOST_TRIALS:
        raise ConfigError(
            f"{arms:,} arms with {seeds:,} seeds each are {arms * seeds:,} trials; a study has at most "
            f"{MOST_TRIALS:,}: take fewer seeds, or make several studies of it"
        )


def read_study_file(name: str) -> StudyFile:
    """Read a built-in study by its name, or one of your own by its path, without resolving its settings.

    Raises:
        ConfigError: there is no such study, or it is not accepted; the message names the line.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        try:
            text = text_of(path)
        except OSError as error:
            raise ConfigError(f"can't read the study {name}: {error.strerror}") from error
        except ConfigError as error:
            raise ConfigError(f"can't read the study {name}: {error}") from None
        return _parse(text, name)
    known = built_in_studies()
    if name in known:
        return _parse(known[name].read_text(), f"{name}.yaml")
    beside = path.with_suffix(".yaml") if path.name else path
    meant = f" (did you mean {str(beside)!r}?)" if beside.is_file() else suggestion(name, known)
    raise ConfigError(f"no study {name!r}{meant}; built in: {', '.join(known)}; or give the path of a .yaml file")


def _parse(text: str, source: str) -> StudyFile:
    try:
        values = read_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{source} is not a study: expected a mapping with name, control and arms")
    return study_file_of(values, source, dict(_line_numbers(yaml.compose(text, yaml.SafeLoader))))


def study_file_of(values: Mapping[str, Any], source: str, lines: Mapping[str, int] | None = None) -> StudyFile:
    """Make a study from the values of a file; errors name ``source`` and, from ``lines``, a value's line.

    Raises:
        ConfigError: a value is not accepted.
    """
    values, lines = dict(values), dict(lines or {})
    try:
        arms = values.get("arms")
        written: dict[str, tuple[str, ...]] = {}
        stressed: dict[str, dict[str, float]] = {}
        if isinstance(arms, dict):
            stress = knob_of(values.get("stress"))
            arms, written, stressed = expanded(arms, stress)
            if stress and isinstance(control := values.get("control"), str) and control in stressed:
                values["control"] = next(iter(stressed[control]))
        file = StudyFile.model_validate(values | ({"arms": arms} if "arms" in values else {}))
    except NotAcceptedError as error:
        raise ConfigError(f"{_at(source, lines, error.place)}: {error}") from None
    except ValidationError as error:
        place = ".".join(map(str, place_of(error)))
        raise ConfigError(f"{_at(source, lines, place)}: {explain(error, StudyFile)}") from None
    file._source, file._lines, file._written, file._stressed = source, lines, written, stressed
    return file


def _at(source: str, lines: Mapping[str, int], place: str) -> str:
    while place and place not in lines:
        place = place.rpartition(".")[0]
    return f"{source}, line {lines[place]}" if place else source


def _line_numbers(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield the dotted name of every key of a YAML text, with its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = f"{prefix}.{key.value}" if prefix else str(key.value)
            yield place, key.start_mark.line + 1
            yield from _line_numbers(value, place)
