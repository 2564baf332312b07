"""Charts of the MLflow UI, as data."""
