"""What remembers trials: journals become MLflow runs, and runs become tables again.

The only importer of mlflow. Names are loaded when they are first used, because mlflow takes seconds
to import; what it reads from the environment is settled here, before that.
"""

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fnostab.tracking.attempt import is_alive
    from fnostab.tracking.black_box import fetch_black_box
    from fnostab.tracking.catching_up import SyncReport, sync
    from fnostab.tracking.closing import ClosedRun, Reconciliation, reconcile
    from fnostab.tracking.elsewhere import RunElsewhere, runs_elsewhere, set_aside
    from fnostab.tracking.live import live_sink
    from fnostab.tracking.passwords import create_admin, needs_admin
    from fnostab.tracking.reader import StudyRecord, find_experiment, newest_study, trial_rows
    from fnostab.tracking.registry import fetch_checkpoint, register_generator
    from fnostab.tracking.run import end_unwritten
    from fnostab.tracking.server import TrackingServer
    from fnostab.tracking.server_settings import ServerSettings, is_loopback
    from fnostab.tracking.store import Store, open_store
    from fnostab.tracking.ui import experiments_with_runs, free_port, ui_command, wait_until_ready
    from fnostab.tracking.uploader import Uploader
    from fnostab.tracking.verdicts import VerdictRecord, log_verdict, newest_verdict
    from fnostab.tracking.views import InstalledViews, install_views, plain_address, view_addresses
    from fnostab.tracking.watching import StudyWatch, WatchedTrial, existing_store, find_study, newest_experiment
    from fnostab.tracking.writer import ensure_study, finish_study, link_project_run, log_study_artifact

__all__ = [
    "ClosedRun",
    "InstalledViews",
    "Reconciliation",
    "RunElsewhere",
    "ServerSettings",
    "Store",
    "StudyRecord",
    "StudyWatch",
    "SyncReport",
    "TrackingServer",
    "Uploader",
    "VerdictRecord",
    "WatchedTrial",
    "create_admin",
    "end_unwritten",
    "ensure_study",
    "existing_store",
    "experiments_with_runs",
    "fetch_black_box",
    "fetch_checkpoint",
    "find_experiment",
    "find_study",
    "finish_study",
    "free_port",
    "install_views",
    "is_alive",
    "is_loopback",
    "link_project_run",
    "live_sink",
    "log_study_artifact",
    "log_verdict",
    "needs_admin",
    "newest_experiment",
    "newest_study",
    "newest_verdict",
    "open_store",
    "plain_address",
    "reconcile",
    "register_generator",
    "runs_elsewhere",
    "set_aside",
    "sync",
    "trial_rows",
    "ui_command",
    "view_addresses",
    "wait_until_ready",
]

_MODULE_OF = {
    "fetch_black_box": "black_box",
    "RunElsewhere": "elsewhere",
    "runs_elsewhere": "elsewhere",
    "set_aside": "elsewhere",
    "live_sink": "live",
    "StudyRecord": "reader",
    "find_experiment": "reader",
    "newest_study": "reader",
    "trial_rows": "reader",
    "ClosedRun": "closing",
    "Reconciliation": "closing",
    "reconcile": "closing",
    "fetch_checkpoint": "registry",
    "register_generator": "registry",
    "end_unwritten": "run",
    "ServerSettings": "server_settings",
    "TrackingServer": "server",
    "create_admin": "passwords",
    "is_loopback": "server_settings",
    "needs_admin": "passwords",
    "Store": "store",
    "open_store": "store",
    "SyncReport": "catching_up",
    "sync": "catching_up",
    "experiments_with_runs": "ui",
    "free_port": "ui",
    "ui_command": "ui",
    "InstalledViews": "views",
    "install_views": "views",
    "plain_address": "views",
    "view_addresses": "views",
    "wait_until_ready": "ui",
    "Uploader": "uploader",
    "VerdictRecord": "verdicts",
    "log_verdict": "verdicts",
    "newest_verdict": "verdicts",
    "is_alive": "attempt",
    "StudyWatch": "watching",
    "WatchedTrial": "watching",
    "existing_store": "watching",
    "find_study": "watching",
    "newest_experiment": "watching",
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
