"""Draw the pictures of a stage, with captions: survival, losses, gradient norms, and pictures that trials kept."""

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from fnostab.decision import Stress
from fnostab.figures import COLOURS, LossCurve, grad_norm_fan, kaplan_meier_figure, loss_curves, make_fan
from fnostab.figures.fan import Fan
from fnostab.figures.stress import stress_figure
from fnostab.figures.style import cycled
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted
from fnostab.record.table import TrialRow
from fnostab.record.trial import StudySpec
from fnostab.report.evidence import Evidence, exemplars, val_loss
from fnostab.report.pictures import Picture, drawing, photograph
from fnostab.stats.rate import Rate
from fnostab.stats.survival import kaplan_meier

VALIDATION = "validation"  # once an epoch or not: a script is not asked


def stress_picture(stress: Stress, name: str = "stress") -> Picture:
    """Draw the failure rate of each arm of a stress study against the knob."""
    arms = {arm.name: [(p.value, Rate(p.failed, p.n)) for p in arm.points] for arm in stress.arms}
    caption = f"Share of trials that failed against {stress.knob}, with 95 % intervals: {stress.finding}."
    return drawing(stress_figure(arms, stress.knob), name, alt=f"Failure rate against {stress.knob}", caption=caption)


def survival(prefix: str, trials: Mapping[str, Sequence[TrialRow]], evidence: Evidence) -> Picture | None:
    """Draw Kaplan-Meier curves of all arms; None for runs of other programs, whose failures have no known step."""
    if not evidence.epochs:
        return None
    times = {
        arm: [(end, t.failed) for t in of_arm if (end := _end(t, evidence)) is not None]
        for arm, of_arm in trials.items()
    }
    curves = {
        arm: kaplan_meier([end for end, _ in pairs], [failed for _, failed in pairs]) for arm, pairs in times.items()
    }
    lost = {arm: [t.failure_step for t in of_arm if _lost(t)] for arm, of_arm in trials.items()}
    return drawing(
        kaplan_meier_figure(curves, {arm: [s for s in steps if s is not None] for arm, steps in lost.items()}),
        f"{prefix}survival",
        alt="Kaplan-Meier curves: share of trials of each arm without a failure, over optimiser steps",
        caption="Share of trials that have not failed by each step (Kaplan-Meier), with 95 % band; a tick is where "
        "trials ended without a failure.",
    )


def _lost(trial: TrialRow) -> bool:
    return trial.outcome is Outcome.NONFINITE and trial.failure_step is not None


def _end(trial: TrialRow, evidence: Evidence) -> int | None:
    """Return the step of a trial's failure or, without one, its last known step.

    A success ends at its last scheduled step, even if it stopped early or did not record every step: stagnated trials
    fail there (see `fnostab.stats.survival`).
    """
    if trial.failed and trial.failure_step is not None:
        return trial.failure_step
    if trial.last_step is not None:
        scheduled = trial.scheduled_steps if trial.outcome is Outcome.CONVERGED else None
        return max(trial.last_step, (scheduled or 0) - 1)
    curve = evidence.curves.get(trial.run_id or "")
    return int(curve.steps[-1]) if curve is not None and curve.steps.size else None


def validation_losses(
    prefix: str, trials: Mapping[str, Sequence[TrialRow]], study: StudySpec, evidence: Evidence
) -> Picture:
    """Draw the validation losses of all seeds over the validations, one panel per arm."""
    curves = {arm: _loss_curves([t for t in of_arm if t.counts], evidence) for arm, of_arm in trials.items()}
    metrics = list(dict.fromkeys(val_loss(study, arm) for arm in trials))
    rows = [trial for of_arm in trials.values() for trial in of_arm]
    floors = [t.noise_floor_loss for t in rows if t.noise_floor_loss is not None]
    constants = [t.constant_loss for t in rows if t.constant_loss is not None]
    between = {"constant output": median(constants), "noise alone": median(floors)} if floors and constants else {}
    metric = metrics[0] if len(metrics) == 1 else "validation loss"
    return drawing(
        loss_curves(curves, metric=metric, x=VALIDATION, levels=between),
        f"{prefix}validation-losses",
        alt="Validation loss of every seed over the validations, with their median, a panel for each arm",
        caption="A thin line is a seed; one that failed ends in a triangle, and counts from there on in the median "
        "as worse than all others.",
    )


def recorded_values(
    prefix: str, trials: Mapping[str, Sequence[TrialRow]], metric: str, evidence: Evidence, *, judged: bool
) -> Picture | None:
    """Draw the metric of runs of other programs over steps, one panel per arm; None if no run has a history."""
    curves = {
        arm: [
            LossCurve(t.seed, found[0].astype(float), found[1], t.failed)
            for t in of_arm
            if (found := evidence.val_losses.get(t.run_id or ""))
        ]
        for arm, of_arm in trials.items()
    }
    if not any(curves.values()):
        return None
    return drawing(
        loss_curves(curves, metric=metric, x="step", median=False, judged=judged),
        f"{prefix}values",
        alt=f"{metric} of every seed over the steps, a panel for each arm",
        caption="A thin line is a seed, as it was recorded.",
    )


def _loss_curves(trials: Sequence[TrialRow], evidence: Evidence) -> list[LossCurve]:
    """Make the loss curves of one arm over the validations, whose distance in steps is the median of all."""
    found = ((t, evidence.val_losses.get(t.run_id or "")) for t in trials)
    histories = [(trial, *history) for trial, history in found if history is not None]
    gaps = np.concatenate([np.diff(steps, prepend=-1) for _, steps, _ in histories] or [np.array([], dtype=np.int64)])
    distance = float(np.median(gaps)) if gaps.size else 1.0
    return [
        LossCurve(
            trial.seed,
            (steps + 1) / distance,
            losses,
            trial.failed,
            [(trial.failure_step + 1) / distance] if _lost(trial) and trial.failure_step is not None else (),
        )
        for trial, steps, losses in histories
    ]


def fans(prefix: str, trials: Mapping[str, Sequence[TrialRow]], evidence: Evidence) -> list[Picture]:
    """Draw the gradient norms of each arm, one picture per arm with the same limits of the axis."""
    curves = {
        arm: [c for t in of_arm if t.counts and (c := evidence.curves.get(t.run_id or "")) is not None]
        for arm, of_arm in trials.items()
    }
    if not (evidence.epochs or any(curves.values())):
        return []
    by_arm = {arm: make_fan(of_arm) for arm, of_arm in curves.items()}
    limits = _limits(list(by_arm.values()))
    pictures = []
    for number, ((arm, fan), colour) in enumerate(zip(by_arm.items(), cycled(COLOURS, len(by_arm)), strict=True)):
        figure = grad_norm_fan(fan, colour=colour, limits=limits)
        pictures.append(
            drawing(
                figure,
                f"{prefix}gradients-{number}",
                alt=f"Gradient norm of {arm} over optimiser steps: median, quartiles and maximum over its seeds",
                caption=f"{arm}: {_fan_in_words(fan)}{_spikes_in_words(trials[arm], evidence)}",
            )
        )
    return pictures


def _limits(fans: Sequence[Fan]) -> tuple[float, float] | None:
    values = [v for fan in fans for each in (fan.low, fan.maximum) for v in each.tolist() if v > 0]
    return (min(values) / 1.6, max(values) * 1.6) if values else None


def _fan_in_words(fan: Fan) -> str:
    if fan.peak is None:
        return "no gradient norm recorded."
    step, seed, norm = fan.peak
    words = f"{counted(fan.n_seeds, 'seed')}, largest norm {norm:.3g} at step {step:,} (seed {seed})"
    if fan.window_steps > 1:
        words += f"; the largest norm of each seed in every {fan.window_steps} steps"
    if fan.nonfinite.any():
        words += f"; first not finite at step {int(fan.steps[fan.nonfinite > 0][0]):,}"
    return words + "."


def _spikes_in_words(trials: Sequence[TrialRow], evidence: Evidence) -> str:
    seen = [s for t in trials if t.counts and (s := evidence.spikes.get(t.run_id or "")) is not None]
    if not seen:
        return ""
    spikes, unrecovered = sum(s.n for s in seen), sum(s.unrecovered for s in seen)
    if not spikes:
        return " No gradient spikes."
    words = f" {counted(spikes, 'gradient spike')} in {sum(s.n > 0 for s in seen)}"
    return f"{words} of {counted(len(seen), 'trial')}, {unrecovered:,} without recovery."


def exemplary(
    prefix: str, trials: Mapping[str, Sequence[TrialRow]], study: StudySpec, evidence: Evidence
) -> tuple[dict[str, list[Picture]], list[str]]:
    """Return the pictures of each arm's best, median and worst trial, and descriptions of those that kept none."""
    shown: dict[str, list[Picture]] = {}
    missing: list[str] = []
    if study.picture is None:
        return shown, missing
    for number, (arm, of_arm) in enumerate(trials.items()):
        for label, trial in exemplars(of_arm, higher_is_better=study.metric.higher_is_better):
            picture = evidence.pictures.get(trial.run_id or "")
            if picture is None:
                missing.append(f"{arm}, {label} (seed {trial.seed}, {trial.outcome})")
                continue
            value = "" if trial.loss is None else f", {study.metric.key} {trial.loss:.4g}"
            caption = f"{label}: seed {trial.seed}, {trial.outcome}{value}"
            name = f"{prefix}exemplary-{number}-seed-{trial.seed}"
            alt = f"{study.picture.title}: {arm}, {label} seed"
            shown.setdefault(arm, []).append(photograph(picture, name, alt=alt, caption=caption))
    return shown, missing
