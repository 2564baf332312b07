"""Import all of fnostab, once the libraries that are its first arguments are there, and say what that changed."""

import gc
import importlib
import json
import logging
import os
import pkgutil
import random
import signal
import sys
import threading

LOGGERS = (
    "",
    "mlflow",
    "mlflow.store.db.utils",
    "urllib3",
    "urllib3.connectionpool",
    "alembic",
    "lightning",
    "lightning.pytorch",
)


def state():
    import matplotlib
    import mlflow.environment_variables as read
    import numpy
    import torch

    return {
        "environment": dict(os.environ),
        "patience": (
            read.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(),
            read.MLFLOW_HTTP_REQUEST_TIMEOUT.get(),
        ),
        "folder": os.getcwd(),
        "hook": sys.excepthook,
        "levels": [logging.getLogger(name).level for name in LOGGERS],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "threads": (threading.active_count(), torch.get_num_threads()),
        "garbage": (gc.isenabled(), gc.get_threshold()),
        "random": (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()),
        "torch": (torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()),
        "figures": (dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)),
    }


if __name__ == "__main__":
    for library in sys.argv[1:]:
        importlib.import_module(library)
    before = state()
    import fnostab

    found = [module.name for module in pkgutil.walk_packages(fnostab.__path__, "fnostab.")]
    for name in found:
        importlib.import_module(name)
    after = state()
    changed = [key for key in before if before[key] != after[key]]
    print(json.dumps({"modules": len(found), "patience": after["patience"], "changed": changed}))
