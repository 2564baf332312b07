"""Read runs that other programs recorded, without changing them."""

from collections.abc import Sequence
from typing import Any

from fnostab.record.numbers import unbounded
from fnostab.tracking.read.studies import find_experiment
from fnostab.tracking.read.summaries import FEW, PLACE, TABLES, run_values
from fnostab.tracking.store.store import Store, reported

Record = dict[str, Any]


def foreign_runs(store: Store, experiments: Sequence[str], wanted: Sequence[str]) -> list[Record]:
    """Read runs of experiments as flat records, oldest first, with keys ``params.x``, ``tags.x`` and ``metrics.x``.

    Each record has the values of `PLACE`, and the ``wanted`` ones that its run has. A metric may be NaN or infinite. A
    database is queried once, for these values only; a server returns whole runs, several pages at once.

    Raises:
        TrackingError: there is no such experiment, or the store does not answer.
    """
    ids = [find_experiment(store, name) for name in experiments]
    names = [name for name in wanted if name.partition(".")[0] in TABLES]
    with reported(store):
        found = [_record(place, values) for place, values in run_values(store, ids, names, {})]
    return sorted(found, key=lambda record: (record["start_time"] or 0, record["run_id"]))


def foreign_names(store: Store, experiments: Sequence[str]) -> list[str]:
    """Names of the params, tags and metrics that the newest runs of experiments have.

    Raises:
        TrackingError: as `foreign_runs` does.
    """
    ids = [find_experiment(store, name) for name in experiments]
    with reported(store):
        runs = store.client.search_runs(ids, max_results=FEW)
    return sorted({f"{group}.{key}" for run in runs for group in TABLES for key in getattr(run.data, group)})


def _record(place: Sequence[Any], values: dict[str, Any]) -> Record:
    record: Record = dict(zip(PLACE, place, strict=True))
    record["experiment_id"] = str(record["experiment_id"])
    return record | {name: unbounded(v) if name.startswith("metrics.") else v for name, v in values.items()}
