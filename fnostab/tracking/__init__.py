"""Send journals to MLflow as runs, and read runs back as tables.

Only this package imports mlflow. Names are loaded when they are first used, because importing mlflow takes seconds.
The module `environment` sets what MLflow reads from the environment, for fnostab's own processes and calls.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fnostab.tracking.model_registry import RegisteredModel, fetch_checkpoint, register_network
    from fnostab.tracking.pages.ui import experiments_with_runs, free_port, ui_command, wait_until_ready
    from fnostab.tracking.pages.verdicts import log_verdict, looks_before, newest_verdict
    from fnostab.tracking.pages.views import charts_address, experiments_page, install_views, view_addresses
    from fnostab.tracking.read.black_box import fetch_black_box
    from fnostab.tracking.read.foreign_runs import foreign_names, foreign_runs
    from fnostab.tracking.read.runs_elsewhere import runs_elsewhere, set_aside
    from fnostab.tracking.read.studies import find_experiment, newest_study, recorded_metrics, trial_rows
    from fnostab.tracking.read.watching import StudyWatch, existing_store, find_study, newest_experiment
    from fnostab.tracking.repair.reconcile import reconcile
    from fnostab.tracking.repair.sync import SyncReport, sync
    from fnostab.tracking.store.passwords import administrator, create_admin
    from fnostab.tracking.store.store import Store, open_store
    from fnostab.tracking.upload.live import live_sink
    from fnostab.tracking.upload.study_run import ensure_study, finish_study, link_project_run
    from fnostab.tracking.upload.trial_run import end_unwritten
    from fnostab.tracking.upload.uploader import Uploader

_NAMES = {  # by module
    "model_registry": "RegisteredModel fetch_checkpoint register_network",
    "pages.ui": "experiments_with_runs free_port ui_command wait_until_ready",
    "pages.verdicts": "log_verdict looks_before newest_verdict",
    "pages.views": "charts_address experiments_page install_views view_addresses",
    "read.black_box": "fetch_black_box",
    "read.foreign_runs": "foreign_names foreign_runs",
    "read.runs_elsewhere": "runs_elsewhere set_aside",
    "read.studies": "find_experiment newest_study recorded_metrics trial_rows",
    "read.watching": "StudyWatch existing_store find_study newest_experiment",
    "repair.reconcile": "reconcile",
    "repair.sync": "SyncReport sync",
    "store.passwords": "administrator create_admin",
    "store.store": "Store open_store",
    "upload.live": "live_sink",
    "upload.study_run": "ensure_study finish_study link_project_run",
    "upload.trial_run": "end_unwritten",
    "upload.uploader": "Uploader",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
