"""MLflow: journals become runs, and runs become tables again.

The only importer of mlflow. Names are loaded when they are first used, because mlflow takes seconds
to import; what it reads from the environment is settled by `environment`, for fnostab's own processes and calls.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fnostab.tracking.pages.ui import experiments_with_runs, free_port, ui_command, wait_until_ready
    from fnostab.tracking.pages.verdicts import VerdictRecord, log_verdict, looks_before, newest_verdict
    from fnostab.tracking.pages.views import InstalledViews, install_views, plain_address, view_addresses
    from fnostab.tracking.read.black_box import fetch_black_box
    from fnostab.tracking.read.foreign_runs import foreign_names, foreign_runs
    from fnostab.tracking.read.runs_elsewhere import RunElsewhere, runs_elsewhere, set_aside
    from fnostab.tracking.read.studies import StudyRecord, find_experiment, newest_study, trial_rows
    from fnostab.tracking.read.watching import StudyWatch, WatchedTrial, existing_store, find_study, newest_experiment
    from fnostab.tracking.registry import RegisteredModel, fetch_checkpoint, register_network
    from fnostab.tracking.repair.reconcile import ClosedRun, Reconciliation, reconcile
    from fnostab.tracking.repair.sync import SyncReport, sync
    from fnostab.tracking.store.passwords import administrator, create_admin
    from fnostab.tracking.store.store import Store, open_store
    from fnostab.tracking.upload.live import live_sink
    from fnostab.tracking.upload.study_run import ensure_study, finish_study, link_project_run, log_study_artifact
    from fnostab.tracking.upload.trial_run import end_unwritten
    from fnostab.tracking.upload.uploader import Uploader

__all__ = [
    "ClosedRun",
    "InstalledViews",
    "Reconciliation",
    "RegisteredModel",
    "RunElsewhere",
    "Store",
    "StudyRecord",
    "StudyWatch",
    "SyncReport",
    "Uploader",
    "VerdictRecord",
    "WatchedTrial",
    "administrator",
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
    "foreign_names",
    "foreign_runs",
    "free_port",
    "install_views",
    "link_project_run",
    "live_sink",
    "log_study_artifact",
    "log_verdict",
    "looks_before",
    "newest_experiment",
    "newest_study",
    "newest_verdict",
    "open_store",
    "plain_address",
    "reconcile",
    "register_network",
    "runs_elsewhere",
    "set_aside",
    "sync",
    "trial_rows",
    "ui_command",
    "view_addresses",
    "wait_until_ready",
]

_MODULE_OF = {
    "fetch_black_box": "read.black_box",
    "foreign_names": "read.foreign_runs",
    "foreign_runs": "read.foreign_runs",
    "RunElsewhere": "read.runs_elsewhere",
    "runs_elsewhere": "read.runs_elsewhere",
    "set_aside": "read.runs_elsewhere",
    "live_sink": "upload.live",
    "StudyRecord": "read.studies",
    "find_experiment": "read.studies",
    "newest_study": "read.studies",
    "trial_rows": "read.studies",
    "ClosedRun": "repair.reconcile",
    "Reconciliation": "repair.reconcile",
    "reconcile": "repair.reconcile",
    "RegisteredModel": "registry",
    "fetch_checkpoint": "registry",
    "register_network": "registry",
    "end_unwritten": "upload.trial_run",
    "create_admin": "store.passwords",
    "administrator": "store.passwords",
    "Store": "store.store",
    "open_store": "store.store",
    "SyncReport": "repair.sync",
    "sync": "repair.sync",
    "experiments_with_runs": "pages.ui",
    "free_port": "pages.ui",
    "ui_command": "pages.ui",
    "InstalledViews": "pages.views",
    "install_views": "pages.views",
    "plain_address": "pages.views",
    "view_addresses": "pages.views",
    "wait_until_ready": "pages.ui",
    "Uploader": "upload.uploader",
    "VerdictRecord": "pages.verdicts",
    "log_verdict": "pages.verdicts",
    "looks_before": "pages.verdicts",
    "newest_verdict": "pages.verdicts",
    "StudyWatch": "read.watching",
    "WatchedTrial": "read.watching",
    "existing_store": "read.watching",
    "find_study": "read.watching",
    "newest_experiment": "read.watching",
    "ensure_study": "upload.study_run",
    "finish_study": "upload.study_run",
    "link_project_run": "upload.study_run",
    "log_study_artifact": "upload.study_run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
