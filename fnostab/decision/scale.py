"""Compare values as ratios if lower is better and all are positive, else as differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fnostab.decision.rules import Rules
from fnostab.decision.tally import Stage
from fnostab.record.outcomes import Outcome
from fnostab.stats.losses import Effect, have_ratios, hodges_lehmann_ratio, hodges_lehmann_shift, lower_loss_p

ROUNDING = 1e-9  # relative


def same(first: float, second: float) -> bool:
    """Whether two values differ by rounding at most."""
    return math.isclose(first, second, rel_tol=ROUNDING)


@dataclass(frozen=True)
class Scale:
    """Scale on which a metric or quality measure is compared.

    Attributes:
        is_ratio: whether values are compared by ratios.
        margin: non-inferiority margin: a share of control's value, or in the values' units; None if not given.
    """

    higher_is_better: bool
    is_ratio: bool
    margin: float | None

    @classmethod
    def of(cls, stage: Stage, rules: Rules) -> "Scale":
        """Choose the scale of the metric from the successes of a stage."""
        losses = [t.loss for t in stage.trials if t.outcome is Outcome.CONVERGED and t.loss is not None]
        return cls(rules.higher_is_better, not rules.higher_is_better and have_ratios(losses), rules.margin)

    def better(self, ours: float, theirs: float) -> bool:
        """Whether a value is better than control's by more than rounding."""
        return not same(ours, theirs) and (ours > theirs if self.higher_is_better else ours < theirs)

    def within(self, ours: float, theirs: float) -> bool:
        """Whether a value is worse than control's by at most the margin, or not worse if there is no margin."""
        limit = self._limit(theirs)
        slack = ROUNDING * max(abs(limit), abs(theirs))
        return ours >= limit - slack if self.higher_is_better else ours <= limit + slack

    def _limit(self, theirs: float) -> float:
        margin = self.margin or 0.0
        if self.is_ratio:
            return theirs * (1 + margin)
        return theirs - margin if self.higher_is_better else theirs + margin

    def p_better(self, ours: Sequence[float], theirs: Sequence[float], *, within: bool = False) -> float:
        """One-sided Mann-Whitney p-value for values better than control's, or worse by less than the margin.

        Args:
            ours: values of the arm, (n,); `worst` for a failure.
            theirs: values of control, (m,).
            within: grant the margin to the arm.
        """
        sign = -1 if self.higher_is_better else 1
        arm, control = ([sign * value for value in values] for values in (ours, theirs))
        margin = (self.margin or 0.0) if within else 0.0
        if self.is_ratio:
            return lower_loss_p(control, arm, 1 + margin)
        return lower_loss_p(control, arm, shift=margin)

    @property
    def worst(self) -> float:
        """Value assigned to a failed trial, worse than any other."""
        return -math.inf if self.higher_is_better else math.inf

    def effect(self, ours: Sequence[float], theirs: Sequence[float]) -> Effect | None:
        """Hodges-Lehmann estimate of the ratio or difference of arm and control; None if either has no values."""
        return hodges_lehmann_ratio(theirs, ours) if self.is_ratio else hodges_lehmann_shift(theirs, ours)

    def excludes_gain(self, effect: Effect | None) -> bool:
        """Whether an effect's interval excludes a gain of the margin (without one, any gain)."""
        if effect is None or effect.interval is None:
            return False
        if self.is_ratio:
            return effect.interval.low > 1 - self.gain
        return effect.interval.high < self.gain if self.higher_is_better else effect.interval.low > -self.gain

    @property
    def gain(self) -> float:
        """Smallest relevant gain: the margin, or 0 without one, or where it is a share that no gain can reach."""
        return 0.0 if self.margin is None or (self.is_ratio and self.margin >= 1) else self.margin

    def change(self, ours: float, theirs: float) -> str:
        """Describe the difference of a value from control's, as in "12 % higher"."""
        if same(ours, theirs):
            return "the same"
        way = "higher" if ours > theirs else "lower"
        if not self.is_ratio:
            return f"{abs(ours - theirs):.3g} {way}"
        ratio = ours / theirs
        share = 100 * abs(ratio - 1)
        if ratio >= 3 or ratio < 0.005:  # the latter would be rounded to 100 % lower
            return f"{ratio:.2g} times as high"
        return f"{share:.0f} % {way}" if share >= 1 else f"{share:.1g} % {way}"
