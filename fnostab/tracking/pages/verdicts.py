"""Record verdicts as runs of their own, beside the studies that they judge, and read them back."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.attempt import this_process
from fnostab.tracking.environment import own_tags
from fnostab.tracking.pages.notes import as_tags, bounded, put_note, run_link
from fnostab.tracking.pages.run_notes import note_study
from fnostab.tracking.read.histories import read_artifact
from fnostab.tracking.read.studies import check_schema
from fnostab.tracking.store.artifact_folders import insist_on_place
from fnostab.tracking.store.paging import NEWEST_FIRST, every, finished_verdicts
from fnostab.tracking.store.store import Store, reported

VERDICT_FILE = "verdict.json"
PARAMS = ("reason", "next_step")  # of the payload, shown as columns in the UI
LONGEST_PARAM = 500
MORE = "… the rest is in verdict.md"


class JudgedStudies(BaseModel):
    """Parent runs of the studies that a verdict judged, by stage."""

    model_config = ConfigDict(frozen=True, strict=True)

    a: str
    b: str | None = None


class VerdictRecord(BaseModel):
    """Facts of a verdict that a later study needs: a part of its ``verdict.json``, and the run that holds it."""

    model_config = ConfigDict(frozen=True, strict=True)

    run_id: str
    verdict: str | None  # None for a study without roles
    next_step: str
    stage_b: list[str]  # control and the arms that deserve the deep test; empty if something else comes next
    study_runs: JudgedStudies


def newest_verdict(store: Store, experiment: str) -> VerdictRecord:
    """Read the newest verdict of an experiment given by ID; interim looks at a running study do not count.

    Raises:
        TrackingError: there is none, it is damaged, or it was recorded with another schema.
    """
    with reported(store):
        name = store.client.get_experiment(experiment).name
        for run in every(store.client.search_runs, [experiment], finished_verdicts(), order_by=NEWEST_FIRST):
            check_schema(run.info.run_id, run.data.tags)
            payload = _payload(store, run.info.run_id)
            if not isinstance(payload.get("look"), int):  # only an interim look has one
                return _record(run.info.run_id, payload, name)
    raise TrackingError(
        f"experiment {name!r} in {store.address} has no verdict: `fnostab decide --experiment {name}` makes one"
    )


def _payload(store: Store, run_id: str) -> Mapping[str, Any]:
    content = read_artifact(store, run_id, VERDICT_FILE)
    try:
        payload = json.loads(content) if content is not None else None
    except ValueError:
        payload = None
    return payload if isinstance(payload, dict) else {}


def _record(run_id: str, payload: Mapping[str, Any], experiment: str) -> VerdictRecord:
    try:
        return VerdictRecord.model_validate({**payload, "run_id": run_id})
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
        raise TrackingError(
            f"{VERDICT_FILE} of the verdict's run {run_id} is damaged or of an older version, in {where!r}: "
            f"`fnostab decide --experiment {experiment}` writes it again"
        ) from None


def looks_before(store: Store, experiment: str, study_run_id: str, *, seeds: int) -> tuple[int, ...]:
    """Numbers of seeds of the earlier looks at a study, rising: verdicts on fewer than ``seeds`` seeds.

    ``seeds`` is the number of trials of the arm that has the most now.

    Raises:
        TrackingError: the store does not answer.
    """
    looks = f"{finished_verdicts(study_run_id)} AND tags.`{names.SEEDS_JUDGED}` LIKE '%'"
    with reported(store):
        runs = every(store.client.search_runs, [experiment], looks)
        judged = {int(run.data.tags[names.SEEDS_JUDGED]) for run in runs}
    return tuple(sorted(count for count in judged if count < seeds))


def log_verdict(
    store: Store,
    experiment: str,
    study_run_ids: Sequence[str],
    verdict: str,
    payload: Mapping[str, Any],
    table_text: str,
    outcomes: Mapping[str, Mapping[str, Counter[str]]] | None = None,
) -> str:
    """Record a verdict and its evidence; return the id of its run.

    ``payload`` is kept as ``verdict.json``; ``table_text`` (Markdown) is shown on the run's page and kept whole as
    ``verdict.md``. ``outcomes`` counts each outcome by study run and arm, for the studies' notes; for a study that is
    missing there, the store is queried.

    Raises:
        TrackingError: the store refuses it or does not answer.
    """
    # MLflow would take "[0.1, 0.2] (3/4)" for a link
    note = f"# {verdict}\n\n{table_text}\n".replace("] (", "] \\(")
    tags = own_tags(names.KIND_VERDICT) | {
        names.VERDICT: verdict,
        names.STUDY_RUN: " ".join(study_run_ids),
        names.OWNER: this_process(),
        **({names.SEEDS_JUDGED: str(payload["seeds"])} if "seeds" in payload else {}),
        **as_tags(bounded(note, more=MORE)),
    }
    with reported(store):
        insist_on_place(store.uri, store.client.get_experiment(experiment))
        run_id: str = store.client.create_run(experiment, tags=tags, run_name=f"verdict: {verdict}").info.run_id
        # One value per line. Indenting would double the time, since only the encoder in pure Python can do it
        store.client.log_text(run_id, json.dumps(payload, separators=(",\n", ": ")), VERDICT_FILE)
        store.client.log_text(run_id, note, "verdict.md")
        for name in PARAMS:
            if payload.get(name):
                store.client.log_param(run_id, name, str(payload[name])[:LONGEST_PARAM])
        put_note(store.client, run_id, bounded(note, _links(experiment, run_id, study_run_ids), MORE))
        store.client.set_terminated(run_id, "FINISHED")
        for study in study_run_ids:
            note_study(store, study, (outcomes or {}).get(study))
    return run_id


def _links(experiment: str, run_id: str, study_run_ids: Sequence[str]) -> str:
    """Links to the judged studies and to the evidence; `fnostab report` adds its report to the same run."""
    studies = [run_link(f"study {study[:8]}", experiment, study) for study in study_run_ids]
    evidence = [
        run_link("the whole verdict", experiment, run_id, "verdict.md"),
        run_link("its numbers", experiment, run_id, "verdict.json"),
        run_link("report, if `fnostab report` made one", experiment, run_id, "report/report.html"),
    ]
    return f"\n{' · '.join([*studies, *evidence])}\n"
