"""Criteria of Stage B that decide only if the study requests them: bounded gradients, and the quality of Stage A."""

from collections.abc import Iterable, Mapping

from fnostab.decision.criteria import Criterion, State
from fnostab.decision.rules import Rules
from fnostab.decision.tally import ArmSummary, Stage
from fnostab.record.plurals import counted


def deep_reports(
    stage_b: Stage, in_a: Mapping[str, ArmSummary], in_b: Mapping[str, ArmSummary], rules: Rules
) -> Iterable[Criterion]:
    """Judge the criteria of each arm of Stage B that decide only if ``rules.follow_up_criteria`` names them."""
    for name, b in in_b.items():
        ratios = [t.grad_ratio for t in stage_b.arm(name) if t.counts and t.grad_ratio is not None]
        bounded = sum(ratio <= rules.grad_bound for ratio in ratios)
        state = State.of(bounded == len(ratios)) if ratios else State.UNTESTABLE
        of = counted(len(ratios), "trial")
        detail = f"gradient p99 at most {rules.grad_bound:g} times its median in {bounded} of {of}"
        yield _criterion(name, "grad_bounded", state, detail, rules)
        yield _matches_stage_a(name, in_a.get(name), b, rules)


def _matches_stage_a(name: str, a: ArmSummary | None, b: ArmSummary, rules: Rules) -> Criterion:
    """Whether the metric and every quality measure are as good as in Stage A."""
    if a is None or a.median is None or b.median is None:
        detail = "no success to compare in both stages"
        return _criterion(name, "matches_stage_a", State.UNTESTABLE, detail, rules)
    pairs = [(rules.metric, rules.higher_is_better, b.median, a.median)]
    pairs += [
        (measure, rule.higher_is_better, b.measures[measure], a.measures[measure])
        for measure, rule in rules.measures.items()
        if measure in a.measures and measure in b.measures
    ]
    holds = all(deep >= plain if higher else deep <= plain for _, higher, deep, plain in pairs)
    detail = "; ".join(f"{what} {deep:.4g}, Stage A {plain:.4g}" for what, _, deep, plain in pairs)
    return _criterion(name, "matches_stage_a", State.of(holds), detail, rules)


def _criterion(arm: str, name: str, state: State, detail: str, rules: Rules) -> Criterion:
    """Create a descriptive criterion, which needs no test."""
    decides = name in rules.follow_up_criteria
    return Criterion("b", arm, name, state, detail, supported=state is State.MET if decides else None, decides=decides)
