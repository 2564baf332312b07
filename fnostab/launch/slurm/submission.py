"""Submit a study's jobs to Slurm through submitit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fnostab.errors import LaunchError, os_errors_as
from fnostab.launch.slurm.cluster import ClusterFile
from fnostab.record import slurm_jobs as slurm
from fnostab.record.job_arrays import FOLDER
from fnostab.record.slurm_jobs import SlurmError
from fnostab.tracking.environment import added

if TYPE_CHECKING:
    from submitit import SlurmExecutor


def insist_on_submitit() -> None:
    """Raise LaunchError if submitit is not installed."""
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise LaunchError("--launcher slurm needs submitit: pip install 'fnostab[slurm]'") from None


def insist_on_slurm() -> str:
    """Check that jobs can be submitted from this machine; return the name of the cluster.

    Raises:
        LaunchError: there is no Slurm here, it does not answer, or it has no accounting to say how jobs end.
    """
    if missing := [name for name in slurm.PROGRAMS if not shutil.which(name)]:
        raise LaunchError(
            f"no Slurm here: {', '.join(missing)} not on PATH; log in to the cluster, or leave out --launcher slurm"
        )
    try:
        settings = slurm.settings()
    except SlurmError as error:
        raise LaunchError(f"Slurm does not answer here: {error}") from error
    if settings.get("AccountingStorageType", "").endswith("/none") or not settings.get("AccountingStorageType"):
        raise LaunchError(
            f"cluster {settings.get('ClusterName')} has no accounting (AccountingStorageType is "
            f"{settings.get('AccountingStorageType') or 'empty'}): how jobs end can't be seen there; see "
            "'Trials on any scheduler' in docs/cluster.md"
        )
    return settings["ClusterName"]


def make_executor(cluster: ClusterFile, folder: Path, name: str, at_once: int) -> SlurmExecutor:
    """Make the executor that submits jobs with the resources of a cluster file; its files are in the study's folder."""
    from submitit import SlurmExecutor

    class Executor(SlurmExecutor):  # type: ignore[misc]
        @classmethod
        def affinity(cls) -> int:
            return 1  # accepted without srun, to show a script; `insist_on_slurm` checks before jobs start

    executor = Executor(folder / FOLDER, max_num_timeout=cluster.max_timeouts)
    executor.update_parameters(
        job_name=name,
        partition=cluster.partition,
        account=cluster.account,
        qos=cluster.qos,
        constraint=cluster.constraint,
        time=cluster.time_minutes,
        mem=None if cluster.memory_gb is None else f"{round(cluster.memory_gb * 1024)}M",
        nodes=1,
        ntasks_per_node=1,
        cpus_per_task=cluster.cpus,
        srun_args=None if cluster.cpus is None else [f"--cpus-per-task={cluster.cpus}"],  # which srun does not inherit
        gpus_per_node=cluster.gpus or None,
        gres=f"shard:{cluster.shards}" if cluster.shards else None,
        signal_delay_s=cluster.notice_s,
        setup=list(cluster.setup) or None,
        wckey=None,  # submitit's default, which some clusters refuse
        array_parallelism=max(at_once, 1),
        additional_parameters={**({} if "no-requeue" in cluster.options else {"requeue": True}), **cluster.options},
    )
    return executor


def script(executor: SlurmExecutor, jobs: int) -> str:
    """Write the script for sbatch that starts a number of jobs."""
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    return str(executor._make_submission_file_text(executor._submitit_command_str, ""))  # not public


def sbatch(executor: SlurmExecutor, jobs: Sequence[Sequence[Path]]) -> str:
    """Submit jobs, each given by its trials' directories, as one array if there are several; return its number.

    Raises:
        LaunchError: Slurm refuses the jobs, or they can't be written.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from fnostab.launch.slurm.job import TrialsJob

    try:
        with os_errors_as(LaunchError, "can't submit jobs"), _outside_of_a_job():
            submitted = executor.submit_array([TrialsJob(directories) for directories in jobs])
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line for line in str(error).splitlines() if line.startswith("sbatch: ")] or str(error).splitlines()
        raise LaunchError(f"Slurm refuses the jobs: {'; '.join(lines)}") from error
    return str(submitted[0].job_id).partition("_")[0]


@contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """Hide the variables of the Slurm job in which this process runs, since a submitted job would inherit them."""
    from submitit.helpers import clean_env

    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    with clean_env(added()):
        os.environ |= kept
        yield
