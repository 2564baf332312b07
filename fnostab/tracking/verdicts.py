"""A verdict as a run of its own, beside the studies that it judges."""

from collections.abc import Mapping, Sequence
from typing import Any

from fnostab import __version__, names
from fnostab.tracking.attempt import this_process
from fnostab.tracking.notes import as_tags, bounded, put_note, run_link
from fnostab.tracking.store import Store, reported
from fnostab.tracking.writer import note_study

__all__ = ["log_verdict"]

PARAMS = ("reason", "next_step")  # of the payload, shown as columns in the UI
LONGEST_PARAM = 500
MORE = "… the rest is in verdict.md"


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
    # MLflow would take "[0.1, 0.2] (3/4)" for a link
    note = f"# {verdict}\n\n{table_text}\n".replace("] (", "] \\(")
    tags = {
        names.KIND: names.KIND_VERDICT,
        names.VERDICT: verdict,
        names.STUDY_RUN: " ".join(study_run_ids),
        names.OWNER: this_process(),
        names.SCHEMA_TAG: names.SCHEMA,
        names.VERSION: __version__,
        **as_tags(bounded(note, more=MORE)),
    }
    with reported(store):
        run_id: str = store.client.create_run(experiment, tags=tags, run_name=f"verdict: {verdict}").info.run_id
        store.client.log_dict(run_id, dict(payload), "verdict.json")
        store.client.log_text(run_id, note, "verdict.md")
        for name in PARAMS:
            if payload.get(name):
                store.client.log_param(run_id, name, str(payload[name])[:LONGEST_PARAM])
        put_note(store.client, run_id, bounded(note, _links(experiment, run_id, study_run_ids), MORE))
        store.client.set_terminated(run_id, "FINISHED")
        for study in study_run_ids:
            note_study(store.client, study)
    return run_id


def _links(experiment: str, run_id: str, study_run_ids: Sequence[str]) -> str:
    """To what was judged and to the evidence; `fnostab report` adds the report to the same run."""
    studies = [run_link(f"study {study[:8]}", experiment, study) for study in study_run_ids]
    evidence = [
        run_link("the whole verdict", experiment, run_id, "verdict.md"),
        run_link("its numbers", experiment, run_id, "verdict.json"),
        run_link("report, if `fnostab report` made one", experiment, run_id, "report/report.html"),
    ]
    return f"\n{' · '.join([*studies, *evidence])}\n"
