"""Read studies, trials and curves from MLflow."""

from fnostab.tracking.environment import import_mlflow

import_mlflow()  # before a module of this package imports it with telemetry
