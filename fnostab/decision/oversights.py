"""Detect likely mistakes in a whole study, such as an unrecorded metric or rules by which every trial fails."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fnostab.decision.words import percent
from fnostab.record.outcomes import Outcome, stopped_short
from fnostab.record.plurals import counted
from fnostab.record.settings import value_text
from fnostab.record.table import TrialRow
from fnostab.stats.design import LEAST_TRIALS


def lacks_metric(trials: Sequence[TrialRow]) -> bool:
    """Whether no trial has a value of the metric, though the outcome of at least one requires it."""
    seen = [trial for trial in trials if trial.counts and trial.outcome is not Outcome.NONFINITE]
    return bool(seen) and all(trial.loss is None for trial in trials)


def all_failed(trials: Sequence[TrialRow]) -> bool:
    """Whether every trial of several failed, so that more of them would tell nothing."""
    counted = [trial for trial in trials if trial.counts]
    return len(counted) > 1 and all(trial.failed for trial in counted)


def arms_without_metric(metric: str, trials: Sequence[TrialRow]) -> str | None:
    """Describe arms whose trials converged without a value of the metric that other trials have; None if none did.

    The study's rules do not judge the metric, else these would not have converged; `exploded` used other values.
    """
    bare = Counter(trial.arm for trial in trials if trial.outcome is Outcome.CONVERGED and trial.loss is None)
    if not bare or all(trial.loss is None for trial in trials):
        return None
    counts = ", ".join(f"{n} of {arm}" for arm, n in bare.items())
    return (
        f"trials that recorded no {metric} were judged by their training loss alone, others by {metric} too: {counts}; "
        f"do not trust their failure rates until every arm records {metric}"
    )


def learning_not_judged(trials: Sequence[TrialRow]) -> str | None:
    """Describe a study without a rule for trials that have learnt nothing; None for any other study.

    All of its trials may count as successes for that reason alone.
    """
    counted = [trial for trial in trials if trial.counts]
    if not any(trial.outcome is Outcome.CONVERGED for trial in counted):
        return None
    unjudged = [{why.partition(":")[0] for why in trial.not_judged} for trial in counted]
    learning = {Outcome.COLLAPSED, Outcome.STAGNATED}
    if learning & {trial.outcome for trial in counted} or not all(learning <= each for each in unjudged):
        return None  # by a rule, or by scripts that announce such failures themselves
    return (
        "no rule says which trials have learnt nothing, so they count as successes: "
        "set baseline or failed under outcome"
    )


def same_at_every_seed(metric: str, arm: str, trials: Sequence[TrialRow]) -> str | None:
    """Describe an arm whose trials all converged with one value of the metric; None for any other arm."""
    values = {trial.loss if trial.outcome is Outcome.CONVERGED else None for trial in trials}
    if len(trials) < LEAST_TRIALS or len(values) > 1 or None in values:
        return None
    return (
        f"{arm} has the same {metric} at every seed, {values.pop():g}: "
        "if the seed has no effect, its trials count as one, and no p-value holds"
    )


def ended_early_line(arm: str, trials: Sequence[TrialRow]) -> str | None:
    """Describe trials of an arm that converged and stopped before their scheduled end; None if none did."""
    ended = [trial for trial in trials if trial.outcome is Outcome.CONVERGED]
    early = [trial for trial in ended if stopped_short(trial.last_step, trial.scheduled_steps)]
    if not early:
        return None
    first = min(early, key=lambda trial: trial.last_step or 0)
    at = f"{(first.last_step or 0) + 1} of {first.scheduled_steps}"
    return (
        f"{arm}: the records of {len(early)} of {counted(len(ended), 'trial')} that converged end before their "
        f"schedule, such as seed {first.seed} after {at} steps; what they did not train through could not fail"
    )


def odd_failure_step_line(arm: str, trials: Sequence[TrialRow]) -> str | None:
    """Describe trials of an arm that failed after they ended, or have the step of a failure and none; None if none do.

    A script may announce a failure before it records that step.
    """
    odd = [
        trial
        for trial in trials
        if trial.failure_step is not None
        and trial.outcome is not Outcome.RUNNING
        and (not trial.failed or (trial.last_step is not None and trial.failure_step > trial.last_step + 1))
    ]
    if not odd:
        return None
    first = odd[0]
    last = "" if first.last_step is None else f", last_step {first.last_step}"
    return (
        f"{arm}: failure_step contradicts outcome or last_step in {len(odd)} of {len(trials)} trials, such as "
        f"seed {first.seed}: {first.outcome}, failure_step {first.failure_step}{last}; the outcome counts"
    )


def judged_in_part(trials: Sequence[TrialRow]) -> dict[str, list[TrialRow]]:
    """Trials that converged without a rule by which others were judged, by ``rule: reason``."""
    lacking: dict[str, list[TrialRow]] = {}
    for trial in trials:
        for reason in trial.not_judged if trial.outcome is Outcome.CONVERGED else ():
            lacking.setdefault(reason, []).append(trial)

    def judged_elsewhere(reason: str) -> bool:
        ends = (reason.partition(": ")[0], Outcome.CONVERGED)  # a failure that the script announced needs no rule
        return any(trial.outcome in ends and reason not in trial.not_judged for trial in trials)

    return {reason: bare for reason, bare in lacking.items() if judged_elsewhere(reason)}


def rules_judged_in_part(trials: Sequence[TrialRow]) -> list[str]:
    """Describe each rule that was not applied to trials that converged, although others were judged by it."""
    lines = []
    for reason, bare in judged_in_part(trials).items():
        rule, _, why = reason.partition(": ")
        if all(trial.loss is None for trial in bare):
            continue  # reported by `arms_without_metric`
        counts = ", ".join(f"{n} of {arm}" for arm, n in Counter(trial.arm for trial in bare).items())
        lines.append(
            f"{rule} was not judged ({why}) in trials that converged: {counts}; others were judged by it; "
            "do not trust these failure rates until every arm is judged alike"
        )
    return lines


def margin_as_share(metric: str, margin: float | None) -> str | None:
    """Describe a margin that was probably meant in the metric's units, but is taken as a share; None for any other."""
    if margin is None or margin < 1:
        return None
    return (
        f"margin {margin:g} is taken as a share, as every {metric} is above 0 and lower is better: "
        f"up to {percent(margin)} higher counts as no worse"
    )


def margin_in_units(metric: str, margin: float | None, trials: Sequence[TrialRow]) -> str | None:
    """Describe a margin that was probably meant as a share of a metric where lower is better, but can't be one."""
    values = [trial.loss for trial in trials if trial.outcome is Outcome.CONVERGED and trial.loss is not None]
    if not margin or not min(values, default=0) <= 0 < max(values, default=0):
        return None
    return (
        f"margin {margin:g} is taken in units of the {metric}, not as a share of control's: "
        f"a share needs values above 0, and the lowest is {min(values):g}"
    )


def all_failed_alike(trials: Sequence[TrialRow], study: Any) -> str | None:
    """Describe a study where all trials of all arms failed by one rule of its file; None for any other study.

    ``study`` has the attributes of a `StudySpec`.
    """
    counted = [trial for trial in trials if trial.counts]
    outcomes = {trial.outcome for trial in counted}
    if len(outcomes) != 1 or len(counted) < 2:
        return None
    outcome, rules, checks = outcomes.pop(), study.rules, []
    judges_metric = set(study.judged.values()) == {study.metric.name}  # a wrong direction then inverts the rules
    if outcome is Outcome.STAGNATED and rules.baseline is not None:
        checks.append(f"baseline {value_text(rules.baseline)}")
    if outcome is Outcome.STAGNATED and rules.failed is not None:
        checks.append(f"failed {_bound(rules.failed)}")
    if outcome is Outcome.COLLAPSED:
        checks += [f"{name} {_bound(bound)} of collapsed" for name, bound in rules.collapsed.items()]
    if judges_metric and (outcome is Outcome.EXPLODED or (outcome is Outcome.STAGNATED and checks)):
        checks.append("higher_is_better")
    if not checks:
        return None
    named = " and ".join(filter(None, (", ".join(checks[:-1]), checks[-1])))
    return f"all trials of all arms are {outcome}: check {named}"


def _bound(bound: Any) -> str:
    side = "below" if bound.above is None else "above"
    return f"{side} {value_text(bound.below if bound.above is None else bound.above)}"
