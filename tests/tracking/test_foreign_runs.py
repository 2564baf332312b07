"""Runs that another program recorded in MLflow, as `decide --runs` reads them."""

import math

import pytest

from fnostab.errors import TrackingError
from fnostab.tracking import foreign_names, foreign_runs, open_store

WANTED = ("params.model", "tags.seed", "metrics.return", "metrics.val/loss", "status")


def record(store, experiment, **values):
    """A run with params, tags and metrics, each given by name."""
    client = store.client
    found = client.get_experiment_by_name(experiment)
    run = client.create_run(found.experiment_id if found else client.create_experiment(experiment)).info.run_id
    for name, value in values.get("params", {}).items():
        client.log_param(run, name, value)
    for name, value in values.get("tags", {}).items():
        client.set_tag(run, name, value)
    for name, value in values.get("metrics", {}).items():
        client.log_metric(run, name, 0.0, step=0)
        client.log_metric(run, name, value, step=1)
    client.set_terminated(run, values.get("status", "FINISHED"))
    return run


@pytest.fixture
def theirs(store):
    return [
        record(
            store,
            "theirs",
            params={"model": "base", "lr": "0.1"},
            tags={"seed": "0"},
            metrics={"return": -3.5, "val/loss": 1.0},
        ),
        record(store, "theirs", params={"model": "norm"}, tags={"seed": "0"}, metrics={"return": math.nan}),
        record(store, "theirs", params={"model": "norm"}, metrics={"return": -math.inf}, status="FAILED"),
        record(store, "more", metrics={"val/loss": math.inf}),
    ]


def test_values_are_the_last_ones_and_those_that_are_not_finite_stay_so(store, theirs, server):
    store.client.delete_run(record(store, "theirs", params={"model": "deleted"}))
    record(store, "others", params={"model": "base"})
    for each in (store, open_store(server.url)):
        found = foreign_runs(each, ["theirs", "more"], WANTED)
        assert [run["run_id"] for run in found] == theirs
        assert [run["status"] for run in found] == ["FINISHED", "FINISHED", "FAILED", "FINISHED"]
        values = [{name: run[name] for name in WANTED[:-1] if name in run} for run in found]
        assert values[0] == {"params.model": "base", "tags.seed": "0", "metrics.return": -3.5, "metrics.val/loss": 1.0}
        assert math.isnan(values[1].pop("metrics.return"))
        assert values[1:] == [
            {"params.model": "norm", "tags.seed": "0"},
            {"params.model": "norm", "metrics.return": -math.inf},
            {"metrics.val/loss": math.inf},
        ]
        assert found[0]["experiment_id"] != found[3]["experiment_id"]


def test_more_runs_than_fit_one_answer_of_a_server(store, server, monkeypatch):
    ids = [record(store, "many", tags={"seed": str(seed)}) for seed in range(7)]
    monkeypatch.setattr("fnostab.tracking.read.summaries.FEW", 2)
    monkeypatch.setattr("fnostab.tracking.read.summaries.SHORT_PAGE", 1)
    for each in (store, open_store(server.url)):
        found = foreign_runs(each, ["many"], ("tags.seed",))
        assert [(run["run_id"], run["tags.seed"]) for run in found] == [(r, str(s)) for s, r in enumerate(ids)]


def test_names_that_there_are(store, theirs):
    found = foreign_names(store, ["theirs"])
    assert {"params.lr", "params.model", "tags.seed", "metrics.return", "metrics.val/loss"} <= set(found)
    with pytest.raises(TrackingError, match=r"no experiment 'their' in .*; there are: Default, more, theirs"):
        foreign_runs(store, ["their"], WANTED)
