"""Saved views of an experiment in the MLflow UI, with charts that show as soon as the page opens.

The content of a view is data, in the folder `dashboards`. MLflow keeps a saved view as a tag of the experiment, in a
schema of its own, so views are installed only for versions of MLflow that they were tested with. A second tag keeps the
digest of what was written, so that a view that a user changed is never overwritten.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

import fnostab
from fnostab.record import names
from fnostab.tracking.pages.notes import put_text
from fnostab.tracking.read.histories import CLASSIC, ui_address
from fnostab.tracking.store.health import served_version
from fnostab.tracking.store.paging import NEWEST_FIRST, of_kind
from fnostab.tracking.store.store import Store, reported

VIEWS = ("shootout", "failed", "arms", "depth", "one_arm", "verdicts")  # the first one is opened
KNOWN_SCHEMA = "3.17"  # version of MLflow; others may show the page without the charts
VIEW_TAG = "mlflow.sharedViewState."  # + share key; a tag of MLflow's own
WRITTEN_TAG = "fnostab.view."  # + share key; SHA-256 of what was written there
NEWEST_MS = 1_700_000_000_000  # the UI lists the newest view first

_CHART = {  # fields that MLflow requires in each chart
    "deleted": False,
    "isGenerated": False,
    "runsCountToCompare": 100,
}
_LINE = {
    "lineSmoothness": 0,
    "xAxisKey": "step",
    "xAxisScaleType": "linear",
    "scaleType": "linear",
    "selectedXAxisMetricKey": "",
    "yAxisKey": "metric",
    "yAxisExpressions": [],
    "ignoreOutliers": False,
    "range": {},
    "useGlobalXaxisKey": False,
    "useGlobalLineSmoothing": False,
}
_PAGE = {
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "columnOrder": [],
    "columnWidths": {},
    "runsHiddenMode": "SHOW_ALL",
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": True,
    "hideEmptyCharts": True,
    "groupsExpanded": {},
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    "chartsSearchFilter": "",
}


@dataclass(frozen=True)
class _NewestStudy:
    """Values of the newest study that replace the words in braces in filters and charts."""

    control: str = "control"
    hash: str = ""
    task: str = ""  # empty without a study: views of any task are installed
    charts: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class InstalledViews:
    """Result of `install_views`.

    Attributes:
        there: names of the views that the experiment has now.
        written: those of them that this call installed or updated.
        remarks: one line for each thing that was left as it is, with the reason.
    """

    there: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def install_views(store: Store, experiment: str) -> InstalledViews:
    """Install or update an experiment's views and a note that links to them; a second call writes nothing.

    A view for one task is left out if the newest study is of another task. A view or note that a user changed in the
    UI stays as it is. With a version of MLflow whose schema is not known, nothing is written.

    Raises:
        TrackingError: the store does not answer, or has no such experiment.
    """
    with reported(store):
        version = served_version(store)
        if not version.startswith(f"{KNOWN_SCHEMA}."):
            return InstalledViews(
                remarks=(
                    f"MLflow {version} is not {KNOWN_SCHEMA}, whose saved views are known: no charts are preset; "
                    f"`pip install 'mlflow~={KNOWN_SCHEMA}.0'` where the page is served brings them back",
                )
            )
        tags = store.client.get_experiment(experiment).tags
        study = _newest_study(store, experiment)
        written, remarks = [], []
        set_tag = partial(store.client.set_experiment_tag, experiment)
        views = tuple(name for name in VIEWS if not study.task or _view(name).get("task", study.task) == study.task)
        for rank, name in enumerate(views):
            view, key = _tag_value(name, rank, study), _share_key(name)
            if not put_text(set_tag, tags, view, VIEW_TAG + key, WRITTEN_TAG + key):
                remarks.append(
                    f"view {name} was changed by hand and is left alone; delete it in the UI's list of views, "
                    "and the next `fnostab ui` installs it again"
                )
            elif tags.get(VIEW_TAG + key) != view:
                written.append(name)
        put_text(set_tag, tags, _note(experiment, views))
    return InstalledViews(views, tuple(written), tuple(remarks))


def view_addresses(url: str, experiment: str, views: InstalledViews) -> dict[str, str]:
    """Address of each installed view on the MLflow UI at ``url``; the plain page if there is none."""
    found = {
        name: f"{plain_address(url, experiment, _view(name)['opens'])}&viewStateShareKey={quote(_share_key(name))}"
        for name in views.there
    }
    return found or {"charts": plain_address(url, experiment)}


def plain_address(url: str, experiment: str, mode: str = "CHART") -> str:
    """Address of an experiment's runs as a CHART or TABLE, without a view."""
    return f"{url}/#/experiments/{experiment}/runs?compareRunsMode={mode}&{CLASSIC}"


def charts_address(store: Store, experiment: str, url: str | None = None) -> str:
    """Address of the charts of an experiment's newest study, on the MLflow UI at ``url`` (None: `ui_address`).

    Raises:
        TrackingError: the store does not answer, or has no such experiment.
    """
    with reported(store):
        tags = store.client.get_experiment(experiment).tags
    there = VIEWS[:1] if VIEW_TAG + _share_key(VIEWS[0]) in tags else ()
    return next(iter(view_addresses(url or ui_address(store), experiment, InstalledViews(there)).values()))


def experiments_page(url: str) -> str:
    """Address of the list of experiments on the MLflow UI at ``url``."""
    return f"{url}/#/experiments?{CLASSIC}"


def dashboards() -> Path:
    """Folder of the views: a wheel has it inside the package, a checkout beside it."""
    package = Path(fnostab.__file__).parent
    inside = package / "dashboards"
    return inside if next(inside.glob("*.json"), None) else package.parent / "dashboards"


def _note(experiment: str, views: Sequence[str]) -> str:
    """Note of an experiment: links to the views in one line, which a folded note shows."""
    addresses = view_addresses("", experiment, InstalledViews(tuple(views)))
    links = [f"[{_view(name)['title'].removeprefix('fnostab: ')}]({addresses[name].lstrip('/')})" for name in views]
    return " · ".join(links)


def _share_key(name: str) -> str:
    return f"fnostab-{name}"


def _view(name: str) -> dict[str, Any]:
    view: dict[str, Any] = json.loads((dashboards() / f"{name}.json").read_text())
    return view


def _tag_value(name: str, rank: int, study: _NewestStudy) -> str:
    """Tag value in which MLflow keeps a view; ``rank`` is its place in the UI's list."""
    view = _view(name)
    stamp = NEWEST_MS - rank
    state = json.dumps(_state(name, view, study), separators=(",", ":"))
    return json.dumps({"name": view["title"], "createdAt": stamp, "updatedAt": stamp, "state": state})


def _state(name: str, view: Mapping[str, Any], study: _NewestStudy) -> dict[str, Any]:
    """State of MLflow's page that a view restores."""
    runs = view["filter"].replace("{control}", study.control).replace("{study}", study.hash)
    grouping = [{"mode": mode, "groupByData": key} for mode, key in view["group_by"]]
    return _PAGE | {
        "searchFilter": runs,
        "useGroupedValuesInCharts": not view.get("seeds", False),
        "selectedColumns": view["columns"],
        "compareRunCharts": list(_charts(name, view, study.charts)),
        "compareRunSections": [
            {
                "uuid": _uuid(name, section["name"]),
                "name": section["name"],
                "columns": section["columns"],
                "cardHeight": section["height"],
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
            }
            for section in view["sections"]
        ],
        "groupBy": {"aggregateFunction": "average", "groupByKeys": grouping} if grouping else None,
    }


def _charts(name: str, view: Mapping[str, Any], words: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Charts of a view, none twice; a word in braces gives one chart for each metric that the study has for it."""
    seen = set[tuple[str, str]]()
    for section in view["sections"]:
        for chart in section["charts"]:
            key = chart["metricKey"]
            for metric in words.get(key[1:-1], ()) if key.startswith("{") else (key,):
                if (chart["type"], metric) in seen:
                    continue
                seen.add((chart["type"], metric))
                place = {
                    "uuid": _uuid(name, section["name"], chart["type"], metric),
                    "metricSectionId": _uuid(name, section["name"]),
                    "displayName": metric,
                    "selectedMetricKeys": [metric],
                }
                yield _CHART | (_LINE if chart["type"] == "LINE" else {}) | chart | place | {"metricKey": metric}


def _uuid(*parts: str) -> str:
    """UUID that depends on the parts only, so that an unchanged view is the same text."""
    return str(uuid5(NAMESPACE_URL, "/".join(("fnostab", *parts))))


def _newest_study(store: Store, experiment: str) -> _NewestStudy:
    newest = store.client.search_runs([experiment], of_kind(names.KIND_STUDY), 1, 1, NEWEST_FIRST)
    if not newest:
        return _NewestStudy()
    data = newest[0].data
    charts = json.loads(data.tags.get(names.CHARTS, "{}"))
    of_study = data.tags.get(names.STUDY_HASH, ""), data.tags.get(names.TASK, "")
    return _NewestStudy(data.params.get("control", "control"), *of_study, charts)
