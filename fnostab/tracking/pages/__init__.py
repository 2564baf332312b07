"""Pages of the MLflow UI: views, notes, verdicts."""

from fnostab.tracking.environment import import_mlflow

import_mlflow()  # before the modules of this room do, with telemetry
