"""How much a verdict would bear: changed outcomes, other thresholds, more seeds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from fnostab.decision.rules import Roles, Rules
from fnostab.decision.tally import Stage, Tally
from fnostab.decision.verdict import Tallies, VerdictName, conclude
from fnostab.outcomes import FAILURES, Outcome
from fnostab.stats.design import predictive_power_limit, seeds_for_predictive_power
from fnostab.table import TrialRow

__all__ = ["MoreSeeds", "Robustness", "assess", "changed_outcomes_to_flip", "more_seeds", "verdicts_at_thresholds"]

OTHER_THRESHOLDS = (0.05, 0.3)  # of the amplitude spread below which an output is constant
MOST_CHANGES = 3
POWER = 0.8
MOST_SEEDS = 200


@dataclass(frozen=True)
class MoreSeeds:
    """How many further seeds an arm would make `fewer_failures` significant, most likely.

    Attributes:
        extra: smallest number with predictive power of at least 0.8; 0 if it is significant now, None
            if there is none up to 200.
        ceiling: the predictive power that no number of seeds exceeds.
    """

    stage: str
    arm: str
    extra: int | None
    ceiling: float

    def __str__(self) -> str:
        where = f"{self.arm} in Stage {self.stage.upper()}"
        if self.extra == 0:
            return f"{where}: none, its lower failure rate is significant"
        if self.extra is not None:
            return f"{where}: {self.extra} more seeds per arm (predictive power {POWER:g} for fewer failures)"
        if self.ceiling < POWER:
            return f"{where}: no number of seeds, predictive power levels off at {self.ceiling:.2f}"
        return f"{where}: more than {MOST_SEEDS} seeds per arm"


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


def more_seeds(roles: Roles, tallies: Tallies, rules: Rules) -> list[MoreSeeds]:
    """For every candidate that was run, in each stage: seeds that `fewer_failures` still takes.

    Jeffreys priors on both rates; alpha is that of Holm's first step over the candidates.
    """
    alpha = rules.alpha / max(len(roles.candidates), 1)
    found = []
    for stage, arms in tallies.items():
        control = arms[roles.control]
        for name in roles.candidates:
            if name not in arms:
                continue
            counts = (control.failed, control.n, arms[name].failed, arms[name].n)
            extra = seeds_for_predictive_power(*counts, alpha=alpha, power=POWER, limit=MOST_SEEDS)
            found.append(MoreSeeds(stage, name, extra, predictive_power_limit(*counts)))
    return found


def changed_outcomes_to_flip(roles: Roles, tallies: Tallies, rules: Rules) -> int | None:
    """Smallest number of trials that, had they ended otherwise, would give another verdict.

    A success may become a failure (the best or the worst of them), a failure a success (with the
    median loss of its arm). None if `MOST_CHANGES` do not suffice.
    """
    now = conclude(roles, tallies, rules).name
    arms = (roles.control, *roles.candidates)
    single = [
        (stage, arm, change)
        for stage, of_stage in tallies.items()
        for arm in arms
        if arm in of_stage
        for change in (_fail_best, _fail_worst, _succeed)
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
    """(threshold of the collapse rule, verdict) where trials that recorded their spread are judged by it."""
    if not all(t.amplitude_spread is not None for s in stages.values() for t in s.trials if t.counts):
        return
    for threshold in OTHER_THRESHOLDS:
        tallies = {
            name: {arm: Tally.of([_rejudged(t, threshold) for t in stage.arm(arm)]) for arm in stage.arms}
            for name, stage in stages.items()
        }
        yield threshold, conclude(roles, tallies, rules).name


def _rejudged(trial: TrialRow, threshold: float) -> TrialRow:
    """The trial as it would have been called had the collapse rule used another threshold."""
    if trial.amplitude_spread is None or not trial.counts or trial.outcome is Outcome.NONFINITE:
        return trial
    held = set(trial.rules_held) - {Outcome.COLLAPSED}
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
    if not tally.failed:
        return None
    extra = () if tally.median is None else (tally.median,)
    losses = tuple(sorted((*tally.losses, *extra)))
    return replace(
        tally,
        ok=tally.ok + 1,
        failed=tally.failed - 1,
        nonfinite=min(tally.nonfinite, tally.failed - 1),
        losses=losses,
    )


def _apply(tallies: Tallies, changes: tuple[tuple[str, str, _Change], ...]) -> Tallies | None:
    changed = {stage: dict(arms) for stage, arms in tallies.items()}
    for stage, arm, change in changes:
        tally = change(changed[stage][arm])
        if tally is None:
            return None
        changed[stage][arm] = tally
    return changed
