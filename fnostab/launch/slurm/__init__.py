"""Run trials as jobs of a Slurm cluster: cluster file, submission, body of a job, and outcomes of ended jobs."""
