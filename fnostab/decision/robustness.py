"""How much a verdict would bear: changed outcomes, other thresholds, more seeds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from fnostab.decision.criteria import Tallies
from fnostab.decision.more_seeds import MoreSeeds, more_seeds
from fnostab.decision.rules import Roles, Rules
from fnostab.decision.tally import Stage, Tally
from fnostab.decision.verdict import VerdictName, conclude
from fnostab.record.outcomes import FAILURES, Outcome
from fnostab.record.table import TrialRow

__all__ = ["Robustness", "assess", "changed_outcomes_to_flip", "verdicts_at_thresholds"]

OTHER_THRESHOLDS = (0.05, 0.3)  # of the amplitude spread below which an output is constant
MOST_CHANGES = 3


@dataclass(frozen=True)
class Robustness:
    """What would have changed the verdict, and what may settle it.

    Attributes:
        to_flip: fewest changed outcomes that give another verdict; None if three do not suffice.
        at_thresholds: the verdict at other collapse thresholds; empty where spreads are not known.
        more_seeds: what `fewer_failures` of each candidate still takes.
    """

    to_flip: int | None
    at_thresholds: Mapping[float, VerdictName]
    more_seeds: tuple[MoreSeeds, ...]


def assess(roles: Roles, stages: Mapping[str, Stage], rules: Rules | None = None) -> Robustness:
    """Ask of a verdict on these stages how much it would bear."""
    rules = rules or Rules()
    tallies = {name: {arm: Tally.of(stage.arm(arm)) for arm in stage.arms} for name, stage in stages.items()}
    return Robustness(
        to_flip=changed_outcomes_to_flip(roles, tallies, rules),
        at_thresholds=dict(verdicts_at_thresholds(roles, stages, rules)),
        more_seeds=tuple(more_seeds(roles, tallies, rules)),
    )


def changed_outcomes_to_flip(roles: Roles, tallies: Tallies, rules: Rules) -> int | None:
    """Smallest number of trials that, had they ended otherwise, would give another verdict.

    A success may become a failure that is not nonfinite (the best or the worst of them), a failure a success
    with the median loss of its arm. That one nonfinite trial of the architecture arm ends GOLD goes without
    saying, and is not counted. None if `MOST_CHANGES` do not suffice.
    """
    now = conclude(roles, tallies, rules).name
    arms = (roles.control, *roles.candidates)
    single = [
        (stage, arm, change)
        for stage, of_stage in tallies.items()
        for arm in arms
        if arm in of_stage
        for change in (_fail_best, _fail_worst, _succeed, _succeed_nonfinite)
    ]
    for n_changes in range(1, MOST_CHANGES + 1):
        for changes in combinations_with_replacement(single, n_changes):
            changed = _apply(tallies, changes)
            if changed is not None and conclude(roles, changed, rules).name is not now:
                return n_changes
    return None


def verdicts_at_thresholds(
    roles: Roles, stages: Mapping[str, Stage], rules: Rules
) -> Iterator[tuple[float, VerdictName]]:
    """(threshold of the collapse rule, verdict); nothing where a trial that it could change has no known spread."""
    trials = [t for stage in stages.values() for t in stage.trials if t.counts and t.outcome is not Outcome.NONFINITE]
    if not trials or any(t.amplitude_spread is None for t in trials):
        return
    for threshold in OTHER_THRESHOLDS:
        tallies = {
            name: {arm: Tally.of([_rejudged(t, threshold, rules) for t in stage.arm(arm)]) for arm in stage.arms}
            for name, stage in stages.items()
        }
        yield threshold, conclude(roles, tallies, rules).name


def _rejudged(trial: TrialRow, threshold: float, rules: Rules) -> TrialRow:
    """The trial as it would have been called had the collapse rule used another threshold.

    One that was called collapsed although its spread is above the usual threshold has patches that are all alike,
    and stays so.
    """
    if trial.amplitude_spread is None or not trial.counts or trial.outcome is Outcome.NONFINITE:
        return trial
    held = {trial.outcome, *trial.rules_held}
    if trial.amplitude_spread < rules.collapse_threshold:
        held.discard(Outcome.COLLAPSED)
    if trial.amplitude_spread < threshold:
        held.add(Outcome.COLLAPSED)
    return replace(trial, outcome=next((rule for rule in FAILURES if rule in held), Outcome.CONVERGED))


_Change = Callable[[Tally], Tally | None]


def _fail_best(tally: Tally) -> Tally | None:
    if not tally.ok:
        return None
    return replace(tally, ok=tally.ok - 1, failed=tally.failed + 1, losses=tally.losses[1:])


def _fail_worst(tally: Tally) -> Tally | None:
    if not tally.ok:
        return None
    return replace(tally, ok=tally.ok - 1, failed=tally.failed + 1, losses=tally.losses[:-1])


def _succeed(tally: Tally) -> Tally | None:
    if tally.failed == tally.nonfinite:
        return None
    middle = len(tally.losses) // 2
    extra = () if tally.median is None else (tally.median,)
    losses = (*tally.losses[:middle], *extra, *tally.losses[middle:])
    return replace(tally, ok=tally.ok + 1, failed=tally.failed - 1, losses=losses)


def _succeed_nonfinite(tally: Tally) -> Tally | None:
    return _succeed(replace(tally, nonfinite=tally.nonfinite - 1)) if tally.nonfinite else None


def _apply(tallies: Tallies, changes: tuple[tuple[str, str, _Change], ...]) -> Tallies | None:
    worsened = {(stage, arm) for stage, arm, change in changes if change in (_fail_best, _fail_worst)}
    changed = {stage: dict(arms) for stage, arms in tallies.items()}
    for stage, arm, change in changes:
        if (stage, arm) in worsened and change in (_succeed, _succeed_nonfinite):
            return None  # one that fails and one that succeeds in its place change nothing but losses
        tally = change(changed[stage][arm])
        if tally is None:
            return None
        changed[stage][arm] = tally
    return changed
