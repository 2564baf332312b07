"""Tasks: what a trial trains."""
