"""The task ``command``: any program is a trial."""
