"""Records of the Slurm jobs that train a study's trials, on disk beside the journals.

    <study's folder>/slurm/<name>.json    a job array, and the trials that its elements train

A queued job has no journal yet; only this record shows that it exists. It is written under a unique name before the
array is submitted, and again with the number that Slurm assigned. A launcher that dies in between leaves a record
without a number; Slurm is then asked for an array of that name.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from fnostab.errors import LaunchError, os_errors_as
from fnostab.record import slurm_jobs as slurm
from fnostab.record.safe_files import write_whole

FOLDER = "slurm"  # within a study's folder


class JobArray(BaseModel):
    """Slurm jobs that were submitted together.

    Attributes:
        name: name of the array and of its record.
        cluster: Slurm's name of the cluster.
        trials: names of the trials that each job trains.
        number: Slurm's number of the array or single job; None until assigned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    cluster: str
    submitted_ms: int
    trials: tuple[tuple[str, ...], ...]
    number: str | None = None

    @classmethod
    def of(cls, study: str, cluster: str, trials: Sequence[Sequence[str]]) -> Self:
        """Create an array of jobs for the trials of a study."""
        now_ms = time.time_ns() // 1_000_000
        name = f"{study}-{secrets.token_hex(4)}"
        return cls(name=name, cluster=cluster, submitted_ms=now_ms, trials=tuple(map(tuple, trials)))

    def job(self, index: int) -> str:
        """Slurm's name of one of the jobs."""
        return f"{self.number}_{index}" if len(self.trials) > 1 else str(self.number)

    def write(self, folder: Path) -> None:
        """Write the record into a study's folder, atomically and durably.

        Raises:
            LaunchError: it can't be written.
        """
        path = folder / FOLDER / f"{self.name}.json"
        with os_errors_as(LaunchError, f"can't write {path}", "fix that first"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, self.model_dump_json(indent=2) + "\n", to_disk=True)

    def remove(self, folder: Path) -> None:
        """Remove the record of an array that was not submitted."""
        (folder / FOLDER / f"{self.name}.json").unlink(missing_ok=True)


def jobs_of(folder: Path, cluster: str, *, find: bool = False) -> dict[str, str]:
    """Last job of each trial in a study's folder on a cluster, by the trial's name.

    Args:
        folder: folder of the study.
        cluster: Slurm's name of the cluster.
        find: ask Slurm for unknown array numbers and record them. Only for the holder of the study's lock: another
            launcher may be submitting these arrays.

    Raises:
        LaunchError: a record is damaged.
        SlurmError: Slurm does not answer.
    """
    jobs: dict[str, str] = {}
    for array in sorted(_read(folder), key=lambda array: array.submitted_ms):
        if array.cluster != cluster:
            continue
        if array.number is None and find and (number := slurm.find_job(array.name)):
            array = array.model_copy(update={"number": number})
            array.write(folder)
        if array.number is not None:
            jobs |= {trial: array.job(index) for index, trials in enumerate(array.trials) for trial in trials}
    return jobs


def queued_jobs(folder: Path) -> Mapping[str, str]:
    """States of waiting and running jobs, by the name of a trial; empty where Slurm can't be asked."""
    if not (folder / FOLDER).is_dir() or not slurm.is_here():
        return {}
    try:
        jobs, queue = jobs_of(folder, slurm.settings().get("ClusterName", "")), slurm.queue()
    except slurm.SlurmError:
        return {}
    return {trial: queue[job] for trial, job in jobs.items() if job in queue}


def _read(folder: Path) -> list[JobArray]:
    arrays = []
    for path in (folder / FOLDER).glob("*.json"):
        try:
            arrays.append(JobArray.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            what = " ".join(str(error).split())[:200]
            raise LaunchError(f"{path} is not a record of jobs: {what}; delete it, end its jobs by scancel") from error
    return arrays
