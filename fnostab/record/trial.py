"""Records of a study and its trials on disk, beside their journals.

    <output>/<experiment>/<study hash>/study.json
    <output>/<experiment>/<study hash>/<arm>-<seed>/trial.json, journal.jsonl, artifacts/, stderr.log

Together with the journals they suffice to recreate the records in MLflow. Both hold the CRC-32 of their
values, and a changed file is refused. A record without it, such as MLflow's copy at the study's run, is only
validated.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fnostab.errors import ConfigError, LaunchError
from fnostab.record.folders import trial_name
from fnostab.record.outcome_rules import OutcomeRules
from fnostab.record.safe_files import write_whole
from fnostab.record.same_settings import same_settings
from fnostab.record.settings import Frozen, explain, text_of

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]  # safe as a folder name


ASK = "ask"  # task of trials that the user's own loop trains
UNLESS_DRAWN = ("data and validation set, unless the program draws them from its seed",)  # the same for all seeds
CHECK = "crc32"
DAMAGED = "restore it from a copy, or delete it: `fnostab run` of its study writes it again"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the JSON file at ``path``.

        Raises:
            LaunchError: the file is missing, is not such a record, or was changed.
        """
        try:
            values = _parse(text_of(path, record=True))
            check = values.pop(CHECK, None)
            if check is not None and check != _check(values):
                raise ConfigError(
                    f"it was changed since it was written; restore it, or delete its {CHECK} to accept it"
                )
            return cls.model_validate_json(json.dumps(values))
        except OSError as error:
            raise LaunchError(f"can't read {path}: {error.strerror or error}") from error
        except ValidationError as error:
            raise LaunchError(f"{path} is not a {cls.__name__}: {_what_is_wrong(error, cls)}") from error
        except ConfigError as error:
            raise LaunchError(f"{path} is not a {cls.__name__}: {error}") from error

    def write(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = self.model_dump(mode="json")
        write_whole(path, json.dumps(values | {CHECK: _check(values)}, indent=2) + "\n")


def _parse(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}; {DAMAGED}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"expected a JSON object; {DAMAGED}")
    return values


def _check(values: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def _what_is_wrong(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    return explain(error, model) if first["type"] != "missing" else f"{first['loc'][-1]} field required"


class Metric(Frozen):
    """Metric that decides in addition to failures.

    Attributes:
        name: name of the metric in the trials' journals, such as ``val/loss``.
        of: value that counts, best or last; None if a trial records only one.
    """

    name: str
    higher_is_better: bool = False
    of: Literal["best", "last"] | None = "best"

    @property
    def key(self) -> str:
        """Name under which a trial's single value is recorded: ``val/loss_best``."""
        return self.name if self.of is None else f"{self.name}_{self.of}"


class Measure(Frozen):
    """Quality measure beside the metric: its direction, and the margin (in its units) that counts as no worse."""

    higher_is_better: bool = True
    margin: Annotated[float, Field(ge=0)] = 0.0


class Charts(Frozen):
    """Metrics for charts in MLflow, in addition to those of every study."""

    lines: tuple[str, ...] = ()  # over the steps
    bars: tuple[str, ...] = ()  # one value per trial


class PicturePanel(Frozen):
    """Picture that trials keep, and its presentation in a report.

    Attributes:
        artifact: path of the picture among a trial's artifacts.
    """

    artifact: str
    title: str
    caption: str


class Resources(Frozen):
    """Machine resources that a trial needs."""

    gpu: bool = False  # whether to train on a GPU if there is one
    threads: Annotated[int, Field(gt=0)] | None = 1  # for its libraries on a CPU; None lets them choose
    one_a_core: bool = True  # without a GPU: one trial per core side by side, else one at a time
    preloads: tuple[str, ...] = ()  # modules that a fork server imports once for all trials; empty for no forks


FollowUpCriterion = Literal["grad_bounded", "matches_stage_a"]


class StudySpec(_Record):
    """Resolved study, from which its parent run in MLflow is created."""

    task: Name
    name: Name
    hash: str
    experiment: Name
    profile: str | None = None  # chosen layer of settings; None if the task has none
    asked_as: str = ""  # name or path given to `fnostab run`
    description: str
    control: str
    arms: Mapping[str, Mapping[str, Any]]  # name -> resolved settings, flat
    config_hashes: Mapping[str, str]  # name -> hash that identifies the arm's trials
    roles: Mapping[str, str] = {}  # "architecture" and "clipping" -> arm
    metric: Metric
    seeds: Mapping[str, tuple[int, ...]] = {}  # name -> requested seeds; one without a run is missing
    judged: Mapping[str, str]  # name -> metric of the journal that the arm's outcome rules judge
    rules: OutcomeRules = OutcomeRules()  # of failures, as far as the study file gives them
    measures: Mapping[str, Measure] = {}  # of quality, by recorded name
    margin: Annotated[float, Field(ge=0)] | None = None  # of the metric: a share of control's value, or in its units
    smallest_effect: Annotated[float, Field(gt=0, lt=1)] = 0.2  # smallest relevant reduction of the failure rate
    lengths: Literal["equal", "free"] = "equal"  # whether arms must run the same number of steps
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05  # of the tests
    size: str = ""  # one line on the size of the arms
    charts: Charts = Charts()
    picture: PicturePanel | None = None
    caveats: tuple[str, ...] = ()  # shown with every verdict
    same_for_all: tuple[str, ...] = ()  # not varied between seeds
    next_of: Mapping[str, str] = {}  # name -> follow-up command if that arm fails
    looks: tuple[int, ...] = ()  # seeds per arm at each planned look
    overrides: Mapping[str, Any] = {}  # settings from the command line
    follow_up: str | None = None  # study that follows this one
    follow_up_criteria: tuple[FollowUpCriterion, ...] = ()  # criteria of that study, in addition to those of the roles
    knob: str | None = None  # setting that a stress study varies
    stressed: Mapping[str, Mapping[str, float]] = {}  # arm -> names of its stressed arms, with values of the knob

    @property
    def same_settings(self) -> dict[str, str]:
        """Arms with the settings of another, each with that arm; they are not compared."""
        return same_settings(self.config_hashes, self.control)

    def extending(self, earlier: "StudySpec") -> "StudySpec":
        """Return this study extended by the arms and seeds of an earlier record that it does not name."""
        named = {
            name: {**getattr(earlier, name), **getattr(self, name)} for name in ("arms", "config_hashes", "judged")
        }
        same = [arm for arm in earlier.seeds if named["config_hashes"].get(arm) == earlier.config_hashes.get(arm)]
        seeds = {arm: (*self.seeds.get(arm, ()), *earlier.seeds[arm]) for arm in same}
        named["seeds"] = {**self.seeds, **{arm: tuple(sorted(set(of_arm))) for arm, of_arm in seeds.items()}}
        return self.model_copy(update=named)


class TrialSpec(_Record):
    """One arm at one seed: everything that ``fnostab train --trial FILE`` needs."""

    task: Name
    experiment: Name
    study: Name
    study_hash: str
    profile: str | None = None
    arm: Name
    seed: Annotated[int, Field(ge=0)]
    settings: Mapping[str, Any]  # flat, named as in study files
    config_hash: str
    metric: Metric
    judged: str  # metric of the journal that the outcome rules judge, such as val/loss
    rules: OutcomeRules = OutcomeRules()
    after_failure: Literal["stop", "continue"] = "stop"
    resources: Resources = Resources()
    argv: tuple[str, ...] | None = None  # of a program; () for a user's own loop; None for a task that trains itself
    working_directory: str | None = None
    shared_dir: str  # shared by trials of several studies, for example for data sets

    @property
    def trial_id(self) -> str:
        """Name of the trial within its experiment."""
        return f"{self.study_hash}-{self.arm}-{self.config_hash[:8]}-{self.seed}"

    @property
    def name(self) -> str:
        """Arm and seed, as in ``control-3``."""
        return trial_name(self.arm, self.seed)
