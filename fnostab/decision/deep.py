"""What Stage B reports of each arm beside its criteria."""

from collections.abc import Iterable, Mapping

from fnostab.decision.criteria import Criterion, State
from fnostab.decision.rules import Rules
from fnostab.decision.tally import ArmSummary, Stage

__all__ = ["deep_reports"]


def deep_reports(
    stage_b: Stage, in_a: Mapping[str, ArmSummary], in_b: Mapping[str, ArmSummary], rules: Rules
) -> Iterable[Criterion]:
    """What Stage B reports of each arm beside its criteria: bounded gradients, and Stage A's quality."""
    for name, b in in_b.items():
        ratios = [t.grad_ratio for t in stage_b.arm(name) if t.counts and t.grad_ratio is not None]
        bounded = sum(ratio <= rules.grad_bound for ratio in ratios)
        state = State.of(bounded == len(ratios)) if ratios else State.UNTESTABLE
        detail = f"gradient p99 at most {rules.grad_bound:g} times its median in {bounded} of {len(ratios)} trials"
        yield Criterion("b", name, "grad_bounded", state, detail, decides=False)

        a = in_a.get(name)
        state, detail = State.UNTESTABLE, "no success to compare in both stages"
        if a and a.median is not None and b.median is not None:
            better = b.median >= a.median if rules.higher_is_better else b.median <= a.median
            detail = f"medians {b.median:.4g}, Stage A {a.median:.4g}"
            if a.median_ssim_amp is not None and b.median_ssim_amp is not None:
                state = State.of(better and b.median_ssim_amp >= a.median_ssim_amp)
                detail += f"; amplitude SSIM {b.median_ssim_amp:.3f}, Stage A {a.median_ssim_amp:.3f}"
        yield Criterion("b", name, "matches_stage_a", state, detail, decides=False)
