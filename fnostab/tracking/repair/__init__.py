"""Maintain a store: sync, reconcile, thinning, artifact addresses."""

from fnostab.tracking.environment import import_mlflow

import_mlflow()  # before a module of this package imports it with telemetry
