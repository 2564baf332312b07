"""Charts that are there when the page opens: saved views of an experiment in the MLflow UI.

MLflow keeps a shared view as a tag of the experiment. Its schema is MLflow's own, so the views are
data, made for the version that constraints.txt pins.
"""

import json
from importlib import resources

import mlflow

from fnostab.tracking.store import Store, reported

__all__ = ["install_view", "view_address"]

KEY = "fnostab-shootout"
TAG = f"mlflow.sharedViewState.{KEY}"
KNOWN_SCHEMA = "3.17"  # of MLflow; others may show the page without the charts


def install_view(store: Store, experiment: str) -> bool:
    """Put the shootout's charts on an experiment, unless it has them: a view that was changed stays.

    Args:
        store: where to.
        experiment: id.

    Returns:
        Whether the view fits this version of MLflow.

    Raises:
        TrackingError: the store does not answer.
    """
    if not mlflow.__version__.startswith(KNOWN_SCHEMA):
        return False
    with reported(store):
        if TAG not in store.client.get_experiment(experiment).tags:
            state = (resources.files("fnostab.dashboards") / "shootout.json").read_text()
            state = json.dumps(json.loads(state), separators=(",", ":"))
            view = {"name": "fnostab: shootout", "createdAt": 0, "updatedAt": 0, "state": state}
            store.client.set_experiment_tag(experiment, TAG, json.dumps(view))
    return True


def view_address(url: str, experiment: str, *, with_charts: bool) -> str:
    """Address of an experiment's charts on the MLflow UI at ``url``."""
    key = f"viewStateShareKey={KEY}&" if with_charts else ""
    return f"{url}/#/experiments/{experiment}/runs?{key}compareRunsMode=CHART&workflowType=machine_learning"
