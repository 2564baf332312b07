"""Read studies back as tables, from each run's tags and latest metrics, never from histories."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.folders import STUDY_FILE, trial_name
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted
from fnostab.record.table import TrialRow
from fnostab.record.trial import StudySpec
from fnostab.tracking.read.single_run import named_outcome, read_spec, status_of
from fnostab.tracking.read.summaries import Summary, read_summaries
from fnostab.tracking.store.paging import NEWEST_FIRST, every, of_kind
from fnostab.tracking.store.store import Store, insist_on_place_of, reported

TAGS_OF_ROW = (
    names.SCHEDULED_STEPS,
    names.CONFIG_HASH,
    names.ARM,
    names.SEED,
    names.OUTCOME,
    names.FAILURE_STEP,
    names.RULES_HELD,
    names.NOT_JUDGED,
    names.REASON,
    names.SCHEMA_TAG,
)
METRICS_OF_ROW = (
    names.LAST_STEP,
    names.GRAD_P99_LAST_HALF,
    names.GRAD_MEDIAN_LAST_HALF,
    names.CONSTANT_LOSS,
    names.NOISE_FLOOR_LOSS,
)


@dataclass(frozen=True)
class StudyRecord:
    """Study in a store.

    Attributes:
        run_id: its parent run.
        start_ms: start of that run, Unix milliseconds.
        others: parent runs of the other studies in its experiment, newest first.
    """

    run_id: str
    spec: StudySpec
    start_ms: int
    others: tuple[str, ...] = ()


def find_experiment(store: Store, name: str) -> str:
    """ID of the experiment called ``name``.

    Raises:
        TrackingError: there is none; the message lists the existing ones.
    """
    with reported(store):
        experiment = store.client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage == "active":
            return str(experiment.experiment_id)
        there_are = ", ".join(sorted(e.name for e in every(store.client.search_experiments))) or "none"
    raise TrackingError(f"no experiment {name!r} in {store.address}; there are: {there_are}")


def newest_study(store: Store, experiment: str, study_run: str | None = None) -> StudyRecord:
    """Find the newest study of an experiment (an ID), or the one whose parent run is ``study_run``.

    Raises:
        TrackingError: there is none, its record can't be read, or it was recorded with another schema.
    """
    with reported(store):
        are_studies = of_kind(names.KIND_STUDY)
        found = list(every(store.client.search_runs, [experiment], are_studies, order_by=NEWEST_FIRST))
        runs = [run for run in found if study_run in (None, run.info.run_id)]
        if not found:
            raise TrackingError(
                f"experiment {experiment} in {store.address} has no study of fnostab: name another; runs of other "
                "programs are judged by `fnostab decide --runs FILE.yaml`"
            )
        if not runs:
            there_are = ", ".join(f"{run.info.run_id} ({run.info.run_name})" for run in found)
            what = f"study with the run {study_run!r}"
            raise TrackingError(f"experiment {experiment} in {store.address} has no {what}; there are: {there_are}")
        run = runs[0]
        check_schema(run.info.run_id, run.data.tags)
        others = tuple(other.info.run_id for other in found if other is not run)
        return StudyRecord(run.info.run_id, _read_spec(store, run.info.run_id), run.info.start_time, others)


def trial_rows(store: Store, experiment: str, study: StudyRecord) -> list[TrialRow]:
    """Read one row for each trial of ``study``, sorted by arm, in the study's order, and by seed.

    Raises:
        TrackingError: the store does not answer, a trial was recorded with another schema, its tags are damaged, or
            its outcome was changed after its end.
    """
    rows, changed = list[TrialRow](), list[str]()
    wanted = (study.spec.metric.key, *METRICS_OF_ROW, *study.spec.measures)
    with reported(store):
        found = read_summaries(store, experiment, study.spec.hash, tags=TAGS_OF_ROW, metrics=wanted)
        for run in found:
            run_id, _, _, tags, metrics = run
            check_schema(run_id, tags)
            if tags.get(names.CONFIG_HASH) != study.spec.config_hashes.get(tags.get(names.ARM, "")):
                continue  # recorded before the arm's settings were changed
            try:
                rows.append(_row(run_id, tags, metrics, study.spec))
                changed += [line] if (line := _changed(run, rows[-1])) else []
            except (KeyError, ValueError) as error:
                raise TrackingError(
                    f"run {run_id} has damaged tags ({error}): correct it, or delete it to leave it out"
                ) from None
    if changed:
        more = f" ({counted(len(changed) - 1, 'more run is', 'more runs are')} like it)" if changed[1:] else ""
        raise TrackingError(
            f"{changed[0]}{more}: `fnostab sync --verify` on the output directory writes what the journal says; "
            "or set the tag back, or delete the run"
        )
    order = list(study.spec.arms)
    return sorted(rows, key=lambda row: (order.index(row.arm) if row.arm in order else len(order), row.seed))


def recorded_metrics(store: Store, run_ids: Iterable[str]) -> set[str]:
    """Names of all metrics of the runs, including those whose value is NaN.

    Raises:
        TrackingError: the store does not answer.
    """
    with reported(store):
        return {name for run_id in run_ids for name in store.client.get_run(run_id).data.metrics}


def _row(run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float], study: StudySpec) -> TrialRow:
    measures, scheduled = study.measures, tags.get(names.SCHEDULED_STEPS)
    failure_step, last_step = tags.get(names.FAILURE_STEP), metrics.get(names.LAST_STEP)
    p99, median = metrics.get(names.GRAD_P99_LAST_HALF), metrics.get(names.GRAD_MEDIAN_LAST_HALF)
    return TrialRow(
        arm=tags[names.ARM],
        seed=int(tags[names.SEED]),
        outcome=Outcome(tags.get(names.OUTCOME, Outcome.RUNNING)),
        loss=metrics.get(study.metric.key),
        failure_step=None if failure_step is None else _step(failure_step),
        last_step=None if last_step is None else int(last_step),
        measures={name: metrics[name] for name in measures if name in metrics},
        scheduled_steps=None if scheduled is None else int(scheduled),
        rules_held=tuple(Outcome(rule.strip()) for rule in tags.get(names.RULES_HELD, "").split(";") if rule.strip()),
        grad_ratio=p99 / median if p99 is not None and median else None,
        run_id=run_id,
        constant_loss=metrics.get(names.CONSTANT_LOSS),
        noise_floor_loss=metrics.get(names.NOISE_FLOOR_LOSS),
        not_judged=tuple(rule.strip() for rule in tags.get(names.NOT_JUDGED, "").split(";") if rule.strip()),
        reason=tags.get(names.REASON),
    )


def _step(text: str) -> int:
    """Parse a 0-based step; raises ValueError if it is not one."""
    step = int(text)
    if step < 0:
        raise ValueError(f"{text} is not a step")
    return step


def _changed(run: Summary, row: TrialRow) -> str | None:
    """Message if a run's outcome was changed after its end was recorded; None otherwise.

    A run's name and status are written with its outcome, so they must agree with it. A run at work is not checked,
    since its outcome may have been announced already; the name of a renamed run says nothing.
    """
    said = named_outcome(run.name, trial_name(row.arm, row.seed))
    if run.status == "RUNNING" or (row.outcome is Outcome.RUNNING and said is None):
        return None
    if said in (None, row.outcome) and status_of(row.outcome) == run.status:
        return None
    says = f"says {row.outcome}" if names.OUTCOME in run.tags else "is gone"
    return (
        f"tag {names.OUTCOME} of run {run.run_id} {says}, "
        f"but its end was recorded with the name {run.name!r} and the status {run.status}"
    )


def _read_spec(store: Store, run_id: str) -> StudySpec:
    spec = read_spec(store.client, run_id)
    if spec is None:
        insist_on_place_of(store, run_id)
        raise TrackingError(
            f"study run {run_id} has no readable {STUDY_FILE}: `fnostab sync` on its output directory writes it"
        )
    return spec


def check_schema(run_id: str, tags: Mapping[str, str]) -> None:
    """Raise TrackingError unless a run was recorded with the schema of this version."""
    schema = tags.get(names.SCHEMA_TAG)
    if schema != names.SCHEMA:
        raise TrackingError(
            f"run {run_id} was recorded with schema {schema!r}, this version of fnostab reads "
            f"{names.SCHEMA!r}: use the version in its tag {names.VERSION}"
        )
