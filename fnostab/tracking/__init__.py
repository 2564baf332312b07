"""What remembers trials: journals become MLflow runs, and runs become tables again.

The only importer of mlflow. Names are loaded when they are first used, because mlflow takes seconds
to import; what it reads from the environment is settled here, before that.
"""

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fnostab.tracking.elsewhere import RunElsewhere, runs_elsewhere, set_aside
    from fnostab.tracking.live import live_sink
    from fnostab.tracking.reader import StudyRecord, find_experiment, newest_study, trial_rows
    from fnostab.tracking.reconcile import SyncReport, sync
    from fnostab.tracking.registry import fetch_checkpoint, register_generator
    from fnostab.tracking.run import end_unwritten
    from fnostab.tracking.store import Store, open_store
    from fnostab.tracking.ui import free_port, ui_command, wait_until_ready
    from fnostab.tracking.uploader import Uploader
    from fnostab.tracking.verdicts import log_verdict
    from fnostab.tracking.views import install_view, view_address
    from fnostab.tracking.writer import ensure_study, finish_study, link_project_run, log_study_artifact

__all__ = [
    "RunElsewhere",
    "Store",
    "StudyRecord",
    "SyncReport",
    "Uploader",
    "end_unwritten",
    "ensure_study",
    "fetch_checkpoint",
    "find_experiment",
    "finish_study",
    "free_port",
    "install_view",
    "link_project_run",
    "live_sink",
    "log_study_artifact",
    "log_verdict",
    "newest_study",
    "open_store",
    "register_generator",
    "runs_elsewhere",
    "set_aside",
    "sync",
    "trial_rows",
    "ui_command",
    "view_address",
    "wait_until_ready",
]

_MODULE_OF = {
    "RunElsewhere": "elsewhere",
    "runs_elsewhere": "elsewhere",
    "set_aside": "elsewhere",
    "live_sink": "live",
    "StudyRecord": "reader",
    "find_experiment": "reader",
    "newest_study": "reader",
    "trial_rows": "reader",
    "fetch_checkpoint": "registry",
    "register_generator": "registry",
    "end_unwritten": "run",
    "Store": "store",
    "open_store": "store",
    "SyncReport": "reconcile",
    "sync": "reconcile",
    "free_port": "ui",
    "install_view": "views",
    "view_address": "views",
    "ui_command": "ui",
    "wait_until_ready": "ui",
    "Uploader": "uploader",
    "log_verdict": "verdicts",
    "ensure_study": "writer",
    "finish_study": "writer",
    "link_project_run": "writer",
    "log_study_artifact": "writer",
}

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
for _name, _value in {
    # The journal is the retry buffer: a request gives up after a minute, not after MLflow's four
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # The terminal belongs to the live table; trouble is reported by `Uploader.trouble`
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Seven processes for `mlflow ui` that nothing here uses
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}.items():
    os.environ.setdefault(_name, _value)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
