"""Resources that a study's jobs request from a Slurm cluster, read from a small YAML file."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fnostab.record.settings import read_yaml_file

Count = Annotated[int, Field(ge=1)]


class ClusterFile(BaseModel):
    """Resources that a job requests. The cluster's defaults apply to fields that are None."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None  # features that a node must have, as gpu
    time_minutes: Count = 60  # after which a job is interrupted, and queued again to go on
    memory_gb: Annotated[float, Field(gt=0)] | None = None  # of a job
    cpus: Count | None = None  # of a job
    gpus: Annotated[int, Field(ge=0)] = 0  # of a job
    shards: Annotated[int, Field(ge=0)] = 0  # of a GPU that jobs share, in place of whole ones
    options: dict[str, str | int | Literal[True]] = {}  # any other of sbatch, by its long name without the hyphens
    setup: tuple[str, ...] = ()  # lines of bash before the trials start
    jobs: Count = 10  # that run at once
    trials_per_job: Count = 1  # side by side
    notice_s: Annotated[int, Field(ge=10)] = 120  # before the end of its time that a job is told of it
    max_timeouts: Annotated[int, Field(ge=0)] = 20  # after which a job whose time is up is not queued again

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.gpus and self.shards:
            raise ValueError(f"gpus={self.gpus} and shards={self.shards} exclude each other: leave one out")
        if self.notice_s >= 60 * self.time_minutes:
            raise ValueError(
                f"notice_s={self.notice_s} leaves nothing of time_minutes={self.time_minutes}: make the one smaller or "
                "the other larger"
            )
        return self


def read_cluster_file(path: str | Path) -> ClusterFile:
    """Read and check a cluster file.

    Raises:
        ConfigError: the file can't be read, or is not accepted.
    """
    return read_yaml_file(path, "cluster file", ClusterFile, "partition: gpu")
