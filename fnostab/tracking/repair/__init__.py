"""Bring a store up to date: sync, reconcile, thinning."""

from fnostab.tracking.environment import import_mlflow

import_mlflow()  # before the modules of this room do, with telemetry
