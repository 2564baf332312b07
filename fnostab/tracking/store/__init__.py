"""Tracking stores: addresses, databases, errors in one line."""

from fnostab.tracking.environment import import_mlflow

import_mlflow()  # before the modules of this room do, with telemetry
