"""What a report says, before it is HTML or Markdown: the verdict's evidence as tables and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fnostab import __version__
from fnostab.decision import ArmSummary, Criterion, Stage, Verdict, VerdictName
from fnostab.figures import (
    COLOURS,
    failure_rate_forest,
    grad_norm_fan,
    kaplan_meier_figure,
    loss_strip,
    make_fan,
)
from fnostab.figures.arms import FailureRate
from fnostab.figures.fan import Fan
from fnostab.figures.style import cycled
from fnostab.report.evidence import Evidence, exemplars
from fnostab.report.pictures import Picture, drawing, photograph
from fnostab.report.verdict import Case, conditions, headline, remarks
from fnostab.stats.survival import kaplan_meier, log_rank
from fnostab.table import TrialRow
from fnostab.trial import StudySpec

__all__ = ["Report", "StageSection", "compose"]

IN_WORDS = {
    VerdictName.GOLD: "The change of architecture is the cure.",
    VerdictName.SILVER: "The change of architecture is not the cure, but clipping helps.",
    VerdictName.PIVOT: "No candidate helps in the deep network.",
    VerdictName.INCONCLUSIVE: "These trials do not decide the question yet.",
}


@dataclass(frozen=True)
class StageSection:
    """One stage of a report.

    Attributes:
        settings: what differs between arms: setting -> value by arm.
        reconstructions: arm -> pictures of its best, median and worst trial.
        missing: trials among these that kept no picture.
        excluded: trials without a training outcome, or still running.
    """

    name: str
    study: StudySpec
    trials: Sequence[TrialRow]
    settings: Mapping[str, Mapping[str, Any]]
    arms: Sequence[ArmSummary]
    criteria: Sequence[Criterion]
    rates: Picture
    losses: Picture
    survival: Picture
    fans: Sequence[Picture]
    reconstructions: Mapping[str, Sequence[Picture]]
    missing: Sequence[str]
    excluded: Sequence[TrialRow]

    @property
    def title(self) -> str:
        """As in "Stage A"."""
        return f"Stage {self.name.upper()}"


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    experiment: str
    headline: str
    verdict: Verdict
    in_words: str
    support: str
    conditions: Sequence[str]
    remarks: Sequence[str]
    sections: Sequence[StageSection]
    pages: Mapping[str, str]
    source: str
    store: str
    on_server: bool
    verdict_run: str
    made_at: datetime
    version: str = __version__

    @property
    def pictures(self) -> list[Picture]:
        """All of them, in the order in which they are shown."""
        found = []
        for each in self.sections:
            found += [each.rates, each.losses, each.survival, *each.fans]
            found += [picture for pictures in each.reconstructions.values() for picture in pictures]
        return found


def compose(
    case: Case, evidence: Evidence, *, experiment: str, store: str, verdict_run: str, made_at: datetime
) -> Report:
    """Draw and word a report.

    Args:
        case: of one or two experiments in MLflow.
        evidence: of its runs.
        experiment: name of Stage A's.
        store: address that may be shown.
        verdict_run: run id of the verdict.
        made_at: when.
    """
    return Report(
        experiment=experiment,
        headline=headline(case.verdict),
        verdict=case.verdict,
        in_words=IN_WORDS[case.verdict.name],
        support=_support(case.verdict, case.studies["a"].alpha),
        conditions=conditions(case.studies),
        remarks=remarks(case),
        sections=[_section(stage, case, evidence) for stage in case.stages],
        pages=evidence.pages,
        source=evidence.source,
        store=store,
        on_server=store.startswith("http"),
        verdict_run=verdict_run,
        made_at=made_at,
    )


def _support(verdict: Verdict, alpha: float) -> str:
    if verdict.supported is None:
        return "It chooses nothing, so there is nothing for a test to support."
    if verdict.name is VerdictName.PIVOT:
        bound = "below 0.2" if verdict.supported else "not below 0.2"
        return f"The upper 95 % bound on what each candidate takes off the failure rate is {bound}."
    tests = f"tests at alpha = {alpha:g}, one-sided, corrected for the number of candidates"
    if verdict.supported:
        return f"Every criterion that it rests on is supported by its test ({tests})."
    return f"The observed numbers say so, but not every criterion that it rests on is supported by its test ({tests})."


def _section(stage: Stage, case: Case, evidence: Evidence) -> StageSection:
    study = case.studies[stage.name]
    arms = [arm for arm in study.arms if arm in stage.arms] + [arm for arm in stage.arms if arm not in study.arms]
    trials = {arm: stage.arm(arm) for arm in arms}
    summaries = {s.arm: s for s in case.verdict.arms if s.stage == stage.name}
    reconstructions, missing = _reconstructions(stage.name, trials, study, evidence)
    return StageSection(
        name=stage.name,
        study=study,
        trials=stage.trials,
        settings=_differences(study, arms),
        arms=[summaries[arm] for arm in arms],
        criteria=[c for c in case.verdict.criteria if c.stage == stage.name],
        rates=drawing(
            failure_rate_forest(
                {arm: FailureRate(s.n_failed, s.n, s.failure_rate_ci) for arm in arms for s in [summaries[arm]]}
            ),
            f"stage-{stage.name}-failure-rates",
            alt="Failure rate of each arm with its 95 % interval",
        ),
        losses=drawing(
            loss_strip(trials, metric=study.primary_metric),
            f"stage-{stage.name}-losses",
            alt="Loss of every seed of each arm, failures as crosses",
            caption="Every seed is a point, at the same place from left to right in each arm.",
        ),
        survival=_survival(stage.name, trials, study.control, evidence),
        fans=_fans(stage.name, trials, evidence),
        reconstructions=reconstructions,
        missing=missing,
        excluded=[t for t in stage.trials if not t.counts],
    )


def _differences(study: StudySpec, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    settings = {arm: study.arms[arm] for arm in arms if arm in study.arms}
    names = dict.fromkeys(name for values in settings.values() for name in values)
    table = {name: {arm: values.get(name) for arm, values in settings.items()} for name in names}
    return {name: values for name, values in table.items() if any(v != values[study.control] for v in values.values())}


def _survival(stage: str, trials: Mapping[str, Sequence[TrialRow]], control: str, evidence: Evidence) -> Picture:
    times = {
        arm: [(end, t.failed) for t in of_arm if (end := _end(t, evidence)) is not None]
        for arm, of_arm in trials.items()
    }
    steps = {arm: ([end for end, _ in pairs], [failed for _, failed in pairs]) for arm, pairs in times.items()}
    curves = {arm: kaplan_meier(*each) for arm, each in steps.items()}
    tests = [
        f"{arm} p = {log_rank(*steps[control], *each).p:.2g}"
        for arm, each in steps.items()
        if arm != control and each[0] and any((*each[1], *steps[control][1]))
    ]
    against = f" Log-rank test against {control}, two-sided: {', '.join(tests)}." if tests else ""
    return drawing(
        kaplan_meier_figure(curves),
        f"stage-{stage}-survival",
        alt="Kaplan-Meier curves: share of trials of each arm without a failure, over optimiser steps",
        caption=f"Kaplan-Meier estimate with 95 % band; a tick is where trials ended without a failure.{against}",
    )


def _end(trial: TrialRow, evidence: Evidence) -> int | None:
    """The step of its failure or, if it did not fail, the last one that is known."""
    if trial.failed and trial.failure_step is not None:
        return trial.failure_step
    if trial.last_step is not None:
        return trial.last_step
    curve = evidence.curves.get(trial.run_id or "")
    return int(curve.steps[-1]) if curve is not None and curve.steps.size else None


def _fans(stage: str, trials: Mapping[str, Sequence[TrialRow]], evidence: Evidence) -> list[Picture]:
    curves = {
        arm: [evidence.curves[t.run_id] for t in of_arm if t.counts and t.run_id in evidence.curves]
        for arm, of_arm in trials.items()
    }
    fans = {arm: make_fan(of_arm) for arm, of_arm in curves.items()}
    limits = _limits(fans.values())
    pictures = []
    for number, ((arm, fan), colour) in enumerate(zip(fans.items(), cycled(COLOURS, len(fans)), strict=True)):
        figure = grad_norm_fan(fan, colour=colour, limits=limits)
        pictures.append(
            drawing(
                figure,
                f"stage-{stage}-gradients-{number}",
                alt=f"Gradient norm of {arm} over optimiser steps: median, quartiles and maximum over its seeds",
                caption=f"{arm}: {_fan_in_words(fan)}",
            )
        )
    return pictures


def _limits(fans: Any) -> tuple[float, float] | None:
    """One axis for all arms."""
    values = [v for fan in fans for each in (fan.low, fan.maximum) for v in each.tolist() if v > 0]
    return (min(values) / 1.6, max(values) * 1.6) if values else None


def _fan_in_words(fan: Fan) -> str:
    if fan.peak is None:
        return "no gradient norm recorded."
    step, seed, norm = fan.peak
    words = (
        f"{fan.n_seeds} seed{'s' if fan.n_seeds != 1 else ''}, largest norm {norm:.3g} at step {step:,} (seed {seed})"
    )
    if fan.window_steps > 1:
        words += f"; the largest norm of each seed in every {fan.window_steps} steps"
    if fan.nonfinite.any():
        words += f"; not finite from step {int(fan.steps[fan.nonfinite > 0][0]):,} in at least one seed"
    return words + "."


def _reconstructions(
    stage: str, trials: Mapping[str, Sequence[TrialRow]], study: StudySpec, evidence: Evidence
) -> tuple[dict[str, list[Picture]], list[str]]:
    shown: dict[str, list[Picture]] = {}
    missing = []
    for number, (arm, of_arm) in enumerate(trials.items()):
        for label, trial in exemplars(of_arm, higher_is_better=study.higher_is_better):
            picture = evidence.pictures.get(trial.run_id or "")
            if picture is None:
                missing.append(f"{arm}, {label} (seed {trial.seed}, {trial.outcome})")
                continue
            loss = "" if trial.loss is None else f", loss {trial.loss:.4g}"
            caption = f"{label}: seed {trial.seed}, {trial.outcome}{loss}"
            name = f"stage-{stage}-reconstruction-{number}-seed-{trial.seed}"
            alt = f"Reconstruction of {arm}, {label} seed, beside the truth"
            shown.setdefault(arm, []).append(photograph(picture, name, alt=alt, caption=caption))
    return shown, missing
