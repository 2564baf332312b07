"""A study and its trials as they are written to disk, beside their journals.

    <output>/<experiment>/<study hash>/study.json
    <output>/<experiment>/<study hash>/<arm>-<seed>/trial.json, journal.jsonl, artifacts/, stderr.log

Together with the journals they are all that is needed to make the records in MLflow again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fnostab.config import TrialConfig
from fnostab.errors import LaunchError

__all__ = ["StudySpec", "TrialSpec"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # safe as a folder's name


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the JSON file at ``path``.

        Raises:
            LaunchError: it is missing or is not such a record.
        """
        try:
            return cls.model_validate_json(Path(path).read_text())
        except OSError as error:
            raise LaunchError(f"can't read {path}: {error.strerror or error}") from error
        except ValidationError as error:
            detail = error.errors()[0]
            place = ".".join(map(str, detail["loc"]))
            raise LaunchError(f"{path} is not a {cls.__name__}: {place} {detail['msg'].lower()}") from error

    def write(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(self.model_dump_json(indent=2) + "\n")
        partial.replace(path)


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
