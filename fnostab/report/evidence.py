"""Read the evidence for a report from the runs: curves, spikes, pictures, addresses.

A verdict needs one number per trial. Histories are larger, so that only those are read that the figures need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fnostab.decision import Stage
from fnostab.figures.decimation import Series
from fnostab.figures.fan import Curve
from fnostab.record import names
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted
from fnostab.record.table import TrialRow
from fnostab.record.trial import StudySpec
from fnostab.tracking import Store
from fnostab.tracking.read.histories import metric_histories, read_artifact, run_page
from fnostab.tracking.read.summaries import read_summaries
from fnostab.tracking.repair.thinning import is_thinned
from fnostab.tracking.store.store import reported

if TYPE_CHECKING:
    from fnostab.report.case import Case

MOST_POINTS = 300_000  # gradient norms read at every step: 1 s from SQLite, half a minute through a server
MOST_CURVES = 300  # trials of a stage whose curves are read; of more trials, the first seeds of each arm


@dataclass(frozen=True)
class Spikes:
    """Number of gradient spikes of a trial, and of those that it did not recover from."""

    n: int
    unrecovered: int


@dataclass(frozen=True)
class Evidence:
    """Evidence read from the runs, by run id.

    Attributes:
        curves: gradient norms over steps.
        val_losses: steps and finite validation losses, both (n,).
        pictures: PNG files of the study's picture panel, of the best, median and worst trials.
        pages: address of each run's page in MLflow.
        source: a sentence that says which gradient norms were read.
        epochs: whether trials validate once per epoch; False for runs of other programs, known by step only.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    val_losses: Mapping[str, Series] = field(default_factory=dict)
    spikes: Mapping[str, Spikes] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    epochs: bool = True


def exemplars(trials: Sequence[TrialRow], *, higher_is_better: bool = False) -> list[tuple[str, TrialRow]]:
    """The best, median and worst of an arm's trials, each once; failures rank below every success.

    Of failures at the same step the loss decides.
    With an even number the median is the better of the two in the middle. Trials without a training
    outcome are left out.
    """
    ranked = sorted((t for t in trials if t.counts), key=lambda t: _rank(t, higher_is_better))
    if not ranked:
        return []
    places = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    by_place: dict[int, list[str]] = {}
    for label, place in places.items():
        by_place.setdefault(place, []).append(label)
    if len(ranked) == 1:
        return [("only", ranked[0])]
    return [(" and ".join(labels), ranked[place]) for place, labels in by_place.items()]


def gather(store: Store, case: "Case", experiment_ids: Mapping[str, str]) -> Evidence:
    """Read the evidence that a report on ``case`` shows.

    Raises:
        TrackingError: the store does not answer.
    """
    stages = {stage.name: [t for t in stage.trials if t.run_id is not None] for stage in case.stages}
    thinned = any(is_thinned(store, experiment_ids[name], case.studies[name].hash) for name in stages)
    curves, source = _read_curves(store, stages, thinned)
    shown = [
        (trial, panel)
        for stage in case.stages
        if (panel := case.studies[stage.name].picture) is not None
        for arm in stage.arms
        for _, trial in exemplars(stage.arm(arm), higher_is_better=case.studies[stage.name].metric.higher_is_better)
    ]
    pictures = {t.run_id: read_artifact(store, t.run_id, p.artifact) for t, p in shown if t.run_id is not None}
    return Evidence(
        curves=curves,
        val_losses=_read_val_losses(store, case, stages),
        spikes=_read_spikes(store, case, experiment_ids),
        pictures={run_id: picture for run_id, picture in pictures.items() if picture is not None},
        pages={
            t.run_id: run_page(store, experiment_ids[name], t.run_id)
            for name, trials in stages.items()
            for t in trials
            if t.run_id is not None
        },
        source=source,
    )


def gather_of_runs(store: Store, case: "Case", history: str | None, experiment_ids: Mapping[str, str]) -> Evidence:
    """Read the evidence on runs of other programs: histories of the metric ``history``, and of gradient norms.

    Raises:
        TrackingError: the store does not answer.
    """
    (stage,) = case.stages
    trials = {t.run_id: t for t in _first_seeds(stage) if t.run_id is not None and t.counts}
    values = _curves_of(store, list(trials), history) if history else {}
    norms = _curves_of(store, list(trials), names.GRAD_NORM)
    return Evidence(
        curves={run_id: Curve(trials[run_id].seed, *found, np.array([], np.int64)) for run_id, found in norms.items()},
        val_losses=values,
        pages={
            t.run_id: run_page(store, experiment_ids[t.run_id], t.run_id) for t in stage.trials if t.run_id is not None
        },
        source=f"Gradient norms as recorded, of {len(trials)} of {counted(len(stage.trials), 'run')}.",
        epochs=False,
    )


def _curves_of(store: Store, run_ids: Sequence[str], metric: str) -> dict[str, Series]:
    """Read histories with more than one finite value; MLflow's databases store the largest float for infinity."""
    found = metric_histories(store, run_ids, metric)
    finite = {run_id: np.abs(values) < np.finfo(float).max for run_id, (_, values) in found.items()}
    return {r: (found[r][0][kept], found[r][1][kept]) for r, kept in finite.items() if kept.sum() > 1}


def _read_curves(store: Store, stages: Mapping[str, Sequence[TrialRow]], thinned: bool) -> tuple[dict[str, Curve], str]:
    everything = [t for trials in stages.values() for t in trials]
    # In a thinned run the deleted values would look like values that were not finite
    every_step = not thinned and sum(t.last_step or 0 for t in everything) <= MOST_POINTS
    chosen = [t for name, trials in stages.items() for t in _first_seeds(Stage(name, tuple(trials)))]
    metric = names.GRAD_NORM if every_step else names.GRAD_NORM_WINDOW_MAX
    histories = metric_histories(store, [t.run_id for t in chosen if t.run_id is not None], metric)
    curves = {
        t.run_id: Curve(t.seed, *histories[t.run_id], _nonfinite_steps(t, histories[t.run_id][0], every_step))
        for t in chosen
        if t.run_id is not None
    }
    what = "every step" if every_step else "the largest of each window of steps, as recorded"
    n = len(everything)
    of = f"all {n} trials" if len(chosen) == n else f"{len(chosen)} of {n} trials, the first seeds of each arm"
    return curves, f"Gradient norms before clipping: {what}, of {of}."


def _read_val_losses(store: Store, case: "Case", stages: Mapping[str, Sequence[TrialRow]]) -> dict[str, Series]:
    """Read the validation losses of trials with a training outcome, by run id."""
    run_ids: dict[str, list[str]] = {}  # by the metric's name
    for name, trials in stages.items():
        for trial in _first_seeds(Stage(name, tuple(trials))):
            if trial.run_id is not None and trial.counts:
                run_ids.setdefault(val_loss(case.studies[name], trial.arm), []).append(trial.run_id)
    return {r: history for metric, of in run_ids.items() for r, history in metric_histories(store, of, metric).items()}


def val_loss(study: StudySpec, arm: str) -> str:
    """Return the name of the recorded metric by which an arm's trials are judged."""
    return study.judged.get(arm, study.metric.name)


def _read_spikes(store: Store, case: "Case", experiment_ids: Mapping[str, str]) -> dict[str, Spikes]:
    """Read the spikes of trials that counted them, by run id."""
    counts = (names.SPIKES, names.SPIKES_UNRECOVERED)
    with reported(store):
        return {
            run.run_id: Spikes(int(run.metrics[names.SPIKES]), int(run.metrics.get(names.SPIKES_UNRECOVERED, 0)))
            for stage, study in case.studies.items()
            for run in read_summaries(store, experiment_ids[stage], study.hash, tags=(), metrics=counts)
            if names.SPIKES in run.metrics
        }


def _first_seeds(stage: Stage) -> list[TrialRow]:
    if len(stage.trials) <= MOST_CURVES:
        return list(stage.trials)
    each = max(1, MOST_CURVES // len(stage.arms))
    return [trial for arm in stage.arms for trial in stage.arm(arm)[:each]]


def _nonfinite_steps(trial: TrialRow, steps: np.ndarray, every_step: bool) -> np.ndarray:  # type: ignore[type-arg]
    """Find the steps of norms that are not finite: these are never sent to MLflow, so they are gaps."""
    found = set[int]()
    if every_step and steps.size:
        found.update(range(max(int(steps[-1]), trial.last_step or 0) + 1))
        found.difference_update(steps.tolist())
    if trial.outcome is Outcome.NONFINITE and trial.failure_step is not None:
        found.add(trial.failure_step)
    return np.array(sorted(found), dtype=np.int64)


def _rank(trial: TrialRow, higher_is_better: bool) -> tuple[bool, float, float]:
    earliness = -float(trial.failure_step or 0) if trial.failed else 0.0  # an earlier failure is worse
    if trial.loss is None:
        return trial.failed, earliness, np.inf
    return trial.failed, earliness, -trial.loss if higher_is_better else trial.loss
