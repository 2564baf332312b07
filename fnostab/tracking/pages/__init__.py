"""What MLflow's pages show: views, notes, verdicts."""
