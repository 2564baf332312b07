"""A study and its trials as they are written to disk, beside their journals.

    <output>/<experiment>/<study hash>/study.json
    <output>/<experiment>/<study hash>/<arm>-<seed>/trial.json, journal.jsonl, artifacts/, stderr.log

Together with the journals they are all that is needed to make the records in MLflow again. Both hold
the CRC-32 of their values: what is read is what was written, or is refused. One without it, as MLflow
keeps it beside the study's run, is only checked for what can be such a record.
"""

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fnostab.errors import ConfigError, LaunchError
from fnostab.ptychography.settings import TrialConfig
from fnostab.record.settings import explain, shown, text_of

__all__ = ["StudySpec", "TrialSpec"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # safe as a folder's name


CHECK = "crc32"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the JSON file at ``path``.

        Raises:
            LaunchError: it is missing, is not such a record, or was changed.
        """
        try:
            values = _parse(text_of(path))
            check = values.pop(CHECK, None)
            if check is not None and check != _check(values):
                raise ConfigError(f"it was changed since it was written; restore it, or delete its {CHECK} to take it")
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
        partial = path.with_suffix(".partial")
        values = self.model_dump(mode="json")
        partial.write_text(json.dumps(values | {CHECK: _check(values)}, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)


def _parse(text: str) -> dict[str, Any]:
    """A JSON object of finite numbers, in which no name stands twice: the last one would win in silence."""

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        (name, times), *_ = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
        if times > 1:
            raise ConfigError(f"{shown(name)} is given twice")
        return dict(pairs)

    def refuse(number: str) -> None:
        raise ConfigError(f"{number} is no finite number")

    try:
        values = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError("expected a JSON object")
    return values


def _check(values: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def _what_is_wrong(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    return explain(error, model) if first["type"] != "missing" else f"{first['loc'][-1]} field required"


class StudySpec(_Record):
    """A resolved study: what its parent run in MLflow is made from."""

    name: Name
    hash: str
    experiment: Name
    profile: str  # "small" or "full"
    description: str
    control: str
    arms: Mapping[str, Mapping[str, Any]]  # name -> resolved settings, dotted
    roles: Mapping[str, str]  # "architecture" and "clipping" -> arm
    primary_metric: str
    higher_is_better: bool = False
    loss_margin: float = 1.10  # how many times control's loss counts as no worse
    alpha: float = 0.05  # of the tests
    depth: int | None = None  # fno_blocks, if all arms share it
    knob: str | None = None  # the setting that a stress study turns
    stressed: Mapping[str, Mapping[str, float]] = {}  # its arms: the names that each runs under, with values


class TrialSpec(_Record):
    """One arm at one seed: all that ``fnostab train --trial FILE`` needs."""

    experiment: Name
    study: Name
    study_hash: str
    profile: str
    arm: Name
    seed: Annotated[int, Field(ge=0)]
    config: TrialConfig
    data_dir: str  # where data sets are cached

    @property
    def trial_id(self) -> str:
        """Name of the trial within its experiment."""
        return f"{self.study_hash}-{self.arm}-{self.seed}"
