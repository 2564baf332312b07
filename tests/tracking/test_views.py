"""Saved views of the MLflow UI: what is written on an experiment, and what is left alone."""

import json
import re

import pytest
from mlflow.exceptions import MlflowException
from tracking_helpers import runs_of_kind, write_outcome, write_trial
from trial_records import study_spec

from fnostab import figures
from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.tracking import ensure_study, install_views, sync, view_addresses
from fnostab.tracking.pages import views
from fnostab.tracking.pages.views import VIEWS, dashboards
from fnostab.tracking.store import health
from fnostab.tracking.upload.study_run import COLOURS, colour_tags

SHOOTOUT = "mlflow.sharedViewState.fnostab-shootout"


@pytest.fixture
def experiment(store, study):
    """One with a study, whose views are deleted."""
    found = store.client.get_run(ensure_study(store, study.spec)).info.experiment_id
    for tag in store.client.get_experiment(found).tags:
        store.client.delete_experiment_tag(found, tag)
    return found


@pytest.fixture
def tags(store, experiment):
    return lambda: dict(store.client.get_experiment(experiment).tags)


def state_of(tags, name):
    return json.loads(json.loads(tags[f"mlflow.sharedViewState.fnostab-{name}"])["state"])


def test_all_views_are_installed_and_a_second_time_writes_nothing(store, experiment, tags):
    first = install_views(store, experiment)
    assert (first.there, first.written, first.remarks) == (VIEWS, VIEWS, ())
    before = tags()
    again = install_views(store, experiment)
    assert (again.there, again.written, again.remarks) == (VIEWS, (), ())
    assert tags() == before


def test_a_view_of_another_tasks_settings_is_left_out(store, make_study, experiment, tags):
    ensure_study(store, make_study(hash="cafe").spec.model_copy(update={"task": "command"}))
    found = install_views(store, experiment)
    assert found.there == tuple(name for name in VIEWS if name != "depth")
    assert "depth" not in tags()["mlflow.note.content"]
    assert not [tag for tag in tags() if "depth" in tag]


def test_a_study_brings_them_along(store, study):
    run = store.client.get_run(ensure_study(store, study.spec))
    assert install_views(store, run.info.experiment_id).written == ()


def test_a_study_is_recorded_where_the_views_cannot_be(store, study, monkeypatch):
    def refuses(*_):
        raise MlflowException("no right to write tags")

    monkeypatch.setattr(store.client, "set_experiment_tag", refuses)
    assert ensure_study(store, study.spec)


def test_the_shootout_shows_the_grad_norm_and_its_window_maximum_on_log_axes_by_arm(store, experiment, tags):
    install_views(store, experiment)
    state = state_of(tags(), "shootout")
    scales = {chart["metricKey"]: chart.get("scaleType") for chart in state["compareRunCharts"]}
    assert (scales[names.GRAD_NORM], scales[names.GRAD_NORM_WINDOW_MAX]) == ("log", "log")
    assert {names.TIME_TO_FAILURE, names.NAN_EVENTS, names.SPIKES, names.CLIP_FRACTION} <= scales.keys()
    assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "arm"}]


def test_arms_of_a_study_have_colours_that_differ_and_trials_wear_them(store, study):
    for arm in ("control", "agc"):
        for seed in (0, 1):
            write_trial(study.trial(arm, seed))
    sync(study.folder, store)
    found = {}
    for run in runs_of_kind(store, names.KIND_TRIAL):
        found.setdefault(run.data.tags[names.ARM], set()).add(run.data.tags["mlflow.runColor"])
    assert found == {"control": {COLOURS[0]}, "agc": {COLOURS[1]}}
    assert COLOURS == figures.COLOURS


def test_eight_arms_have_eight_colours(store):
    spec = study_spec({f"blocks_{n}": {"model.fno_blocks": n} for n in range(1, 9)}, control="blocks_1")
    run_id = ensure_study(store, spec)
    assert len({colour_tags(store.client, run_id, arm)["mlflow.runColor"] for arm in spec.arms}) == 8


def test_failed_trials_are_found_each_drawn_by_itself(store, study, experiment, tags):
    with Journal(study.trial("control", 3)) as journal:
        write_outcome(journal, "collapsed", failure_step=33)
    write_trial(study.trial("agc"))
    sync(study.folder, store)
    install_views(store, experiment)
    state = state_of(tags(), "failed")
    assert state["useGroupedValuesInCharts"] is False
    (failed,) = store.client.search_runs([experiment], state["searchFilter"])
    assert failed.info.run_name == "control-3 collapsed"


@pytest.mark.parametrize("name", VIEWS)
def test_no_view_shows_a_chart_twice(store, experiment, tags, name):
    install_views(store, experiment)
    charts = [(chart["type"], chart["metricKey"]) for chart in state_of(tags(), name)["compareRunCharts"]]
    assert len(charts) == len(set(charts))


def test_an_experiments_note_leads_to_the_views_and_another_hand_is_respected(store, experiment, tags):
    install_views(store, experiment)
    first = tags()["mlflow.note.content"].splitlines()[0]
    for name in VIEWS:
        assert f"&workflowType=machine_learning&viewStateShareKey=fnostab-{name})" in first
    store.client.set_experiment_tag(experiment, "mlflow.note.content", "mine")
    install_views(store, experiment)
    assert tags()["mlflow.note.content"] == "mine"


def test_one_arm_is_the_control_of_the_newest_study(store, make_study, tags, experiment):
    install_views(store, experiment)
    other = make_study(hash="cafe")
    spec = other.spec.model_copy(update={"control": "agc"})
    ensure_study(store, spec)
    assert "`fnostab.study_hash` = 'cafe' AND tags.arm = 'agc'" in state_of(tags(), "one_arm")["searchFilter"]


def test_a_view_that_was_changed_stays_and_is_named(store, experiment, tags):
    install_views(store, experiment)
    store.client.set_experiment_tag(experiment, SHOOTOUT, '{"name": "mine"}')
    found = install_views(store, experiment)
    assert tags()[SHOOTOUT] == '{"name": "mine"}'
    assert found.written == ()
    assert found.there == VIEWS
    assert re.search("view shootout was changed by hand and is left alone; delete it", found.remarks[0])
    store.client.delete_experiment_tag(experiment, SHOOTOUT)
    assert install_views(store, experiment).written == ("shootout",)


def test_a_newer_version_replaces_our_own_older_one(store, experiment, tags, monkeypatch):
    install_views(store, experiment)
    old = tags()[SHOOTOUT]
    monkeypatch.setattr(views, "NEWEST_MS", views.NEWEST_MS + 1)
    assert install_views(store, experiment).written == VIEWS
    assert tags()[SHOOTOUT] != old
    assert install_views(store, experiment).written == ()


def test_a_crash_between_the_two_tags_does_not_make_a_view_look_changed(store, experiment, monkeypatch):
    install_views(store, experiment)
    monkeypatch.setattr(views, "NEWEST_MS", views.NEWEST_MS + 1)
    write = store.client.set_experiment_tag

    def dies_at_the_view(experiment, key, value):
        if key.startswith(views.VIEW_TAG):
            raise ConnectionError
        write(experiment, key, value)

    monkeypatch.setattr(store.client, "set_experiment_tag", dies_at_the_view)
    with pytest.raises(TrackingError):
        install_views(store, experiment)
    monkeypatch.setattr(store.client, "set_experiment_tag", write)
    assert install_views(store, experiment).remarks == ()


def test_an_unknown_version_of_mlflow_gets_the_plain_page(store, experiment, tags, monkeypatch):
    monkeypatch.setattr(health.mlflow, "__version__", "4.0.1")
    before = tags()
    found = install_views(store, experiment)
    assert tags() == before
    assert (found.there, found.written) == ((), ())
    assert "MLflow 4.0.1 is not 3.17" in found.remarks[0]
    addresses = view_addresses("http://host", experiment, found)
    assert addresses == {
        "charts": f"http://host/#/experiments/{experiment}/runs?compareRunsMode=CHART&workflowType=machine_learning"
    }


def test_the_version_is_that_of_the_server(server, experiment):
    from fnostab.tracking import open_store

    assert install_views(open_store(server.url), experiment).written == VIEWS


def test_a_missing_experiment_is_an_error(store):
    with pytest.raises(TrackingError, match="12345"):
        install_views(store, "12345")


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_names_only_what_is_recorded(name):
    text = (dashboards() / f"{name}.json").read_text()
    known = {value for value in vars(names).values() if isinstance(value, str)}
    metrics = {chart["metricKey"] for section in json.loads(text)["sections"] for chart in section["charts"]}
    columns = set(re.findall(r"(?:metrics|tags)\.`([^`]+)`", text))
    assert {metric for metric in metrics | columns if metric not in known} <= {
        "{judged}",
        "{metric}",
        "{lines}",
        "{bars}",
    }  # of the study
