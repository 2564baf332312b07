"""Compare the metric and quality measures of an arm with control's, over the trials that did not fail."""

from collections.abc import Sequence
from dataclasses import dataclass

from fnostab.decision.pairs import Pair
from fnostab.decision.scale import Scale, same
from fnostab.decision.tally import median
from fnostab.stats.losses import Effect

SHOWN = 0.05  # uncorrected p of a worse value: better to name one cost too many


@dataclass(frozen=True)
class Difference:
    """Difference between an arm and control in one metric.

    Attributes:
        text: difference as text, such as "12 % higher".
        beyond: whether the arm's median is worse than control's by more than the margin.
        p_worse: one-sided p-value against no difference.
        not_compared: reason why the two were not compared, as text; empty if they were.
        better: whether the arm's median is better than control's.
        is_same: whether both medians are the same, up to rounding.
    """

    name: str
    text: str = ""
    beyond: bool = False
    shown: bool = False
    p_worse: float | None = None
    not_compared: str = ""
    better: bool = False
    is_same: bool = False
    effect: Effect | None = None


def differences(pair: Pair) -> tuple[Difference, ...]:
    """Compare the metric, then each measure of quality."""
    rules = pair.rules
    found = [_difference(rules.metric, pair, pair.scale, pair.ours.losses, pair.control.losses)]
    for name, measure in rules.measures.items():
        scale = Scale(measure.higher_is_better, False, measure.margin)
        ours, theirs = (tally.measures.get(name, ()) for tally in (pair.ours, pair.control))
        found.append(_difference(name, pair, scale, ours, theirs))
    return tuple(found)


def _difference(name: str, pair: Pair, scale: Scale, ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    least = pair.rules.least_trials
    for arm, tally, values in ((pair.control_arm, pair.control, theirs), (pair.arm, pair.ours, ours)):
        if tally.failed and not tally.ok:
            return Difference(name, not_compared=f"all {tally.n} of {arm} failed")
        if tally.ok < least:
            return Difference(name, not_compared=f"only {tally.ok} of {tally.n} of {arm} did not fail")
        if len(values) < least:
            return Difference(name, not_compared="too few values were recorded")
    mine, other = median(ours), median(theirs)
    assert mine is not None
    assert other is not None
    p_worse = scale.p_better(theirs, ours)
    return Difference(
        name,
        text=scale.change(mine, other),
        beyond=not scale.within(mine, other),
        shown=p_worse <= SHOWN,
        p_worse=p_worse,
        better=scale.better(mine, other),
        is_same=same(mine, other),
        effect=scale.effect(ours, theirs),
    )
