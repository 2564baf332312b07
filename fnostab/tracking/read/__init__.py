"""Studies, trials and curves out of MLflow."""
