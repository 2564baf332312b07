"""A verdict as a run of its own, beside the studies that it judges."""

from collections.abc import Mapping, Sequence
from typing import Any

from fnostab import __version__, names
from fnostab.tracking.store import Store, reported
from fnostab.tracking.writer import NOTE

__all__ = ["log_verdict"]

LONGEST_NOTE = 7900  # characters; MLflow refuses a tag above 8000


def log_verdict(
    store: Store,
    experiment: str,
    study_run_ids: Sequence[str],
    verdict: str,
    payload: Mapping[str, Any],
    table_text: str,
) -> str:
    """Record a verdict and its evidence; return the id of its run.

    Args:
        store: where to.
        experiment: id, of `find_experiment`.
        study_run_ids: parent runs of the studies that were judged.
        verdict: its headline, as in "GOLD (unsupported)".
        payload: all of it, kept as ``verdict.json``.
        table_text: Markdown, shown on the run's page and kept whole as ``verdict.md``.

    Raises:
        TrackingError: the store does not take it.
    """
    note = f"# {verdict}\n\n{table_text}\n"
    tags = {
        names.KIND: names.KIND_VERDICT,
        names.VERDICT: verdict,
        names.STUDY_RUN: " ".join(study_run_ids),
        names.SCHEMA_TAG: names.SCHEMA,
        names.VERSION: __version__,
        NOTE: note if len(note) <= LONGEST_NOTE else f"{note[:LONGEST_NOTE]}\n\n… the rest is in verdict.md",
    }
    with reported(store):
        run_id: str = store.client.create_run(experiment, tags=tags, run_name=f"verdict: {verdict}").info.run_id
        store.client.log_dict(run_id, dict(payload), "verdict.json")
        store.client.log_text(run_id, note, "verdict.md")
        store.client.set_terminated(run_id, "FINISHED")
    return run_id
