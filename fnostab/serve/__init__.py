"""MLflow's tracking server for a group."""
