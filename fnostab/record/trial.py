"""A study and its trials as they are written to disk, beside their journals.

    <output>/<experiment>/<study hash>/study.json
    <output>/<experiment>/<study hash>/<arm>-<seed>/trial.json, journal.jsonl, artifacts/, stderr.log

Together with the journals they are all that is needed to make the records in MLflow again. Both hold
the CRC-32 of their values: a changed file is refused. A record without it, as MLflow keeps it beside the
study's run, is only checked for its form.
"""

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fnostab.errors import ConfigError, LaunchError
from fnostab.record.folders import trial_name
from fnostab.record.outcome_rules import OutcomeRules
from fnostab.record.safe_files import write_whole
from fnostab.record.same_settings import same_settings
from fnostab.record.settings import Frozen, explain, shown, text_of

__all__ = [
    "ASK",
    "UNLESS_DRAWN",
    "Charts",
    "FollowUpCriterion",
    "Measure",
    "Metric",
    "Name",
    "PicturePanel",
    "Resources",
    "StudySpec",
    "TrialSpec",
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]  # safe as a folder's name


ASK = "ask"  # task of trials that a loop of the user's own trains
UNLESS_DRAWN = ("data and validation set, unless the program draws them from its seed",)  # the same for all seeds
CHECK = "crc32"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the JSON file at ``path``.

        Raises:
            LaunchError: the file is missing, is no such record, or was changed.
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
    """Parse a JSON object; refuse NaN, infinity and repeated names, of which the last would win in silence."""

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        (name, times), *_ = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
        if times > 1:
            raise ConfigError(f"{shown(name)} is given twice")
        return dict(pairs)

    def refuse(number: str) -> None:
        raise ConfigError(f"{number} is not a finite number")

    try:
        values = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError("expected a JSON object")
    return values


def _check(values: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def _what_is_wrong(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    return explain(error, model) if first["type"] != "missing" else f"{first['loc'][-1]} field required"


class Metric(Frozen):
    """Metric that decides besides failures.

    Attributes:
        name: name of the metric in the trials' journals, as ``val/loss``.
        of: which of a trial's values counts, best or last; None if a trial records only one.
    """

    name: str
    higher_is_better: bool = False
    of: Literal["best", "last"] | None = "best"

    @property
    def key(self) -> str:
        """Name under which a trial's one value is recorded: ``val/loss_best``."""
        return self.name if self.of is None else f"{self.name}_{self.of}"


class Measure(Frozen):
    """A measure of quality beside the metric: its direction, and the margin (in its units) that counts as no worse."""

    higher_is_better: bool = True
    margin: Annotated[float, Field(ge=0)] = 0.0


class Charts(Frozen):
    """Metrics for charts in MLflow, beside those that every study has."""

    lines: tuple[str, ...] = ()  # over the steps
    bars: tuple[str, ...] = ()  # one value a trial


class PicturePanel(Frozen):
    """A picture that trials keep, and how a report presents it.

    Attributes:
        artifact: path of the picture among a trial's artifacts.
    """

    artifact: str
    title: str
    caption: str


class Resources(Frozen):
    """Resources of a machine that a trial needs."""

    gpu: bool = False  # whether it trains on a GPU if there is one
    threads: Annotated[int, Field(gt=0)] | None = 1  # that its libraries may use on a CPU; None lets them choose
    one_a_core: bool = True  # whether so many run side by side without a GPU; else one at a time
    preloads: tuple[str, ...] = ()  # modules that a fork server imports once for all trials; empty: no forks


FollowUpCriterion = Literal["grad_bounded", "matches_stage_a"]


class StudySpec(_Record):
    """A resolved study, from which its parent run in MLflow is made."""

    task: Name
    name: Name
    hash: str
    experiment: Name
    profile: str | None = None  # named layer of settings that was chosen; None of a task that has none
    asked_as: str = ""  # name or path that `fnostab run` was given
    description: str
    control: str
    arms: Mapping[str, Mapping[str, Any]]  # name -> resolved settings, flat
    config_hashes: Mapping[str, str]  # name -> hash of what identifies the arm's trials
    roles: Mapping[str, str] = {}  # "architecture" and "clipping" -> arm
    metric: Metric
    seeds: Mapping[str, tuple[int, ...]] = {}  # name -> seeds that were asked for; one of them without a run is missing
    judged: Mapping[str, str]  # name -> metric of the journal that the arm's outcome rules are about
    rules: OutcomeRules = OutcomeRules()  # of failures, as far as the study's file says them
    measures: Mapping[str, Measure] = {}  # of quality, by the name under which trials record them
    margin: Annotated[float, Field(ge=0)] | None = None  # of the metric: a share of control's, or in its units
    smallest_effect: Annotated[float, Field(gt=0, lt=1)] = 0.2  # reduction of the failure rate that is worth having
    lengths: Literal["equal", "free"] = "equal"  # whether arms must run the same number of steps
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05  # of the tests
    size: str = ""  # a line on how large the arms are
    charts: Charts = Charts()
    picture: PicturePanel | None = None
    caveats: tuple[str, ...] = ()  # what a verdict is to be read with
    same_for_all: tuple[str, ...] = ()  # what was not varied from seed to seed
    next_of: Mapping[str, str] = {}  # name -> command that goes on where that arm of the study fails
    looks: tuple[int, ...] = ()  # seeds per arm at each planned look
    overrides: Mapping[str, Any] = {}  # settings that the command line gave
    follow_up: str | None = None  # study that comes after this one
    follow_up_criteria: tuple[FollowUpCriterion, ...] = ()  # that decide there besides those of the roles
    knob: str | None = None  # the setting that a stress study turns
    stressed: Mapping[str, Mapping[str, float]] = {}  # its arms: the names that each runs under, with values

    @property
    def same_settings(self) -> dict[str, str]:
        """Arms with the settings of another, which are not compared, each with that arm."""
        return same_settings(self.config_hashes, self.control)

    def extending(self, earlier: "StudySpec") -> "StudySpec":
        """This study with the arms and seeds of an earlier record of it that this one does not name."""
        named = {
            name: {**getattr(earlier, name), **getattr(self, name)} for name in ("arms", "config_hashes", "judged")
        }
        same = [arm for arm in earlier.seeds if named["config_hashes"].get(arm) == earlier.config_hashes.get(arm)]
        seeds = {arm: (*self.seeds.get(arm, ()), *earlier.seeds[arm]) for arm in same}
        named["seeds"] = {**self.seeds, **{arm: tuple(sorted(set(of_arm))) for arm, of_arm in seeds.items()}}
        return self.model_copy(update=named)


class TrialSpec(_Record):
    """One arm at one seed: all that ``fnostab train --trial FILE`` needs."""

    task: Name
    experiment: Name
    study: Name
    study_hash: str
    profile: str | None = None
    arm: Name
    seed: Annotated[int, Field(ge=0)]
    settings: Mapping[str, Any]  # flat: names as they are written in study files
    config_hash: str
    metric: Metric
    judged: str  # metric of the journal that the outcome rules are about, as val/loss
    rules: OutcomeRules = OutcomeRules()
    after_failure: Literal["stop", "continue"] = "stop"
    resources: Resources = Resources()
    argv: tuple[str, ...] | None = None  # of a program; () of a loop of the user's own; None of a task that trains
    working_directory: str | None = None
    shared_dir: str  # for what the trials of several studies share, as data sets

    @property
    def trial_id(self) -> str:
        """Name of the trial within its experiment."""
        return f"{self.study_hash}-{self.arm}-{self.config_hash[:8]}-{self.seed}"

    @property
    def name(self) -> str:
        """Arm and seed, as in ``control-3``."""
        return trial_name(self.arm, self.seed)
