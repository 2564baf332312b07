"""Upload journals to MLflow."""

from fnostab.tracking.environment import import_mlflow

import_mlflow()  # before a module of this package imports it with telemetry
