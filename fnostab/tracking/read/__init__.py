"""Studies, trials and curves out of MLflow."""

from fnostab.tracking.environment import import_mlflow

import_mlflow()  # before the modules of this room do, with telemetry
