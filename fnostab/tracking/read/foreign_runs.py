"""Runs that others recorded: read as they are, nothing of them is written."""

from collections.abc import Iterator, Sequence
from typing import Any

from fnostab.errors import TrackingError
from fnostab.tracking.read.summaries import PAGE
from fnostab.tracking.store.store import Store, reported

__all__ = ["foreign_runs"]


def foreign_runs(store: Store, experiments: Sequence[str], wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Runs of experiments as flat records: ``params.x``, ``tags.x``, ``metrics.x``, ``run_id`` and ``status``.

    Args:
        store: where they are.
        experiments: names; empty for all.
        wanted: names that are given where a run has them.

    Raises:
        TrackingError: there is no such experiment, or the store does not answer.
    """
    with reported(store):
        known = {e.name: e.experiment_id for e in store.client.search_experiments()}
    if missing := [name for name in experiments if name not in known]:
        there_are = ", ".join(sorted(known)) or "none"
        raise TrackingError(f"there is no experiment {missing[0]!r} in {store.address}; there are: {there_are}")
    ids = [known[name] for name in experiments] or list(known.values())
    token = None
    while True:
        with reported(store):
            page = store.client.search_runs(ids, max_results=PAGE, page_token=token)
        for run in page:
            groups = {"params": run.data.params, "tags": run.data.tags, "metrics": run.data.metrics}
            record: dict[str, Any] = {"run_id": run.info.run_id, "status": run.info.status}
            for name in wanted:
                group, _, key = name.partition(".")
                if key in groups.get(group, {}):
                    record[name] = groups[group][key]
            yield record
        token = page.token
        if not token:
            return
