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
    time_minutes: Count = 60  # time limit of a job, which is then queued again and continues
    memory_gb: Annotated[float, Field(gt=0)] | None = None  # memory of a job
    cpus: Count | None = None  # processor cores of a job
    gpus: Annotated[int, Field(ge=0)] = 0  # GPUs of a job
    shards: Annotated[int, Field(ge=0)] = 0  # shares of a GPU, where jobs share one; excludes gpus
    options: dict[str, str | int | Literal[True]] = {}  # further options of sbatch, by their long names without hyphens
    setup: tuple[str, ...] = ()  # lines of bash that run before the trials start
    jobs: Count = 10  # jobs that run at the same time
    trials_per_job: Count = 1  # trials of a job that run side by side
    notice_s: Annotated[int, Field(ge=10)] = 120  # seconds before its time limit at which a job is warned
    max_timeouts: Annotated[int, Field(ge=0)] = 20  # how often a job may reach its time limit and be queued again

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
