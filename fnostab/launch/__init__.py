"""Starting trials: processes, forks, Slurm; retries and cancelling."""
