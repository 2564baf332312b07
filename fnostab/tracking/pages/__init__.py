"""Pages of the MLflow UI: views, notes, verdicts."""
