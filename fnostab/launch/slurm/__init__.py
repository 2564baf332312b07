"""Trials as jobs of a Slurm cluster: what they ask for, how they are submitted, what runs in them, how they ended."""
