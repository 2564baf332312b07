"""Choose the launcher of a study's trials from the command line's options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fnostab.errors import ConfigError

if TYPE_CHECKING:
    from fnostab.launch.slurm.launcher import SlurmLauncher


def make_launcher(name: str, cluster: str | None, jobs: int | None, *, starts: bool = True) -> SlurmLauncher | None:
    """Make the launcher that the options name; None for processes of this machine.

    A launcher that only shows trials, without ``starts``, needs no Slurm.

    Raises:
        FnostabError: the cluster file is not accepted, or jobs can't be submitted from here.
    """
    if name == "local":
        if cluster:
            raise ConfigError(f"--cluster {cluster} needs --launcher slurm: add that, or leave --cluster out")
        return None
    from fnostab.launch.slurm.cluster import ClusterFile, read_cluster_file
    from fnostab.launch.slurm.launcher import SlurmLauncher

    return SlurmLauncher(read_cluster_file(cluster) if cluster else ClusterFile(), jobs, starts=starts)
