"""The criteria: an arm against control, within one stage.

Each is judged twice. Its state follows from the observed numbers alone. Whether those numbers could
be luck is the test's to say: Boschloo's for failure rates, Mann-Whitney's for losses, each one-sided
and with Holm's correction over the candidates that can be tested.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from fnostab.decision.rules import Roles, Rules
from fnostab.decision.tally import ArmSummary, Stage, Tally
from fnostab.stats.losses import hodges_lehmann_ratio, lower_loss_p
from fnostab.stats.proportions import fewer_failures_p, holm, newcombe_difference

__all__ = ["CRITERIA", "Criterion", "State", "deep_reports", "observed", "stage_criteria"]


class State(StrEnum):
    """What the observed numbers say of a criterion."""

    MET = "met"
    NOT_MET = "not_met"
    UNTESTABLE = "untestable"


@dataclass(frozen=True)
class Criterion:
    """One comparison, with its evidence.

    Attributes:
        state: by the observed numbers.
        detail: those numbers, in words.
        supported: whether the test supports a criterion that is met; None where none was made.
        test: name of the test.
        p: one-sided, after Holm.
        effect: reduction of the failure rate, or ratio of the losses.
        ci: of the effect, 95 %.
        decides: whether verdicts may rest on it; others are only reported.
    """

    stage: str
    arm: str
    name: str
    state: State
    detail: str
    supported: bool | None = None
    test: str | None = None
    p: float | None = None
    effect: float | None = None
    ci: tuple[float, float] | None = None
    decides: bool = True


# On observed numbers


def _fewer_failures(control: Tally, arm: Tally, rules: Rules) -> State:
    if not arm.failed and not control.failed:
        return State.UNTESTABLE
    return _met(arm.failed * control.n < control.failed * arm.n)


def _no_nonfinite(control: Tally, arm: Tally, rules: Rules) -> State:
    return _met(not arm.nonfinite)


def _better_loss(control: Tally, arm: Tally, rules: Rules) -> State:
    return _compare_losses(control, arm, rules, margin=1.0)


def _loss_within(control: Tally, arm: Tally, rules: Rules) -> State:
    return _compare_losses(control, arm, rules, margin=rules.loss_margin)


def _compare_losses(control: Tally, arm: Tally, rules: Rules, margin: float) -> State:
    ours, theirs = arm.median, control.median
    if ours is None:
        return State.NOT_MET
    if theirs is None:  # without a success control is the worse one; with one of unknown loss, who knows
        return State.UNTESTABLE if control.ok else State.MET
    better, worse = (theirs, ours) if rules.higher_is_better else (ours, theirs)
    return _met(better < worse if margin == 1.0 else better <= margin * worse)


def _met(holds: bool) -> State:
    return State.MET if holds else State.NOT_MET


CRITERIA: Mapping[str, Callable[[Tally, Tally, Rules], State]] = {
    "fewer_failures": _fewer_failures,
    "better_loss": _better_loss,
    "loss_within_10pct": _loss_within,
    "no_nonfinite": _no_nonfinite,
}


def observed(name: str, control: Tally, arm: Tally, rules: Rules) -> tuple[State, str]:
    """State of a criterion, and why it can't be tested if it can't; else the reason is empty."""
    if min(control.n, arm.n) < rules.least_trials:
        return (
            State.UNTESTABLE,
            f"needs {rules.least_trials} training outcomes each, has control {control.n}, arm {arm.n}",
        )
    judge = CRITERIA[name]
    state = judge(control, arm, rules)
    if (control.excluded or arm.excluded) and state is not judge(
        control.excluded_as_successes(), arm.excluded_as_failures(), rules
    ):
        return State.UNTESTABLE, f"{control.excluded + arm.excluded} excluded trials could change it (exclusions)"
    return state, "neither failed" if state is State.UNTESTABLE else ""


# With their tests


def stage_criteria(stage: Stage, roles: Roles, rules: Rules, summaries: Mapping[str, ArmSummary]) -> list[Criterion]:
    """Every criterion for every arm of a stage but control; ``summaries`` are those of its arms."""
    control = Tally.of(stage.arm(roles.control))
    arms = [arm for arm in stage.arms if arm != roles.control]
    found = []
    for arm in arms:
        tally = Tally.of(stage.arm(arm))
        for name in CRITERIA:
            state, problem = observed(name, control, tally, rules)
            if min(control.n, tally.n) < rules.least_trials:
                found.append(Criterion(stage.name, arm, name, state, problem))
                continue
            criterion = _tested(name, control, tally, summaries[arm], rules)
            detail = f"{_detail(name, control, tally)}{'; ' if problem else ''}{problem}"
            found.append(replace(criterion, state=state, detail=detail))
    compared = roles.candidates or tuple(arms)
    return [_with_support(c, found, compared, summaries, roles.control, rules) for c in found]


def _tested(name: str, theirs: Tally, ours: Tally, arm: ArmSummary, rules: Rules) -> Criterion:
    """Test, raw p, effect and its interval; state and detail are still open."""
    bare = Criterion(arm.stage, arm.arm, name, State.UNTESTABLE, "")
    if name == "no_nonfinite":
        return bare
    if name == "fewer_failures":
        counts = (theirs.failed, theirs.n, ours.failed, ours.n)
        reduction = theirs.failed / theirs.n - ours.failed / ours.n
        ci = newcombe_difference(*counts)
        return replace(bare, test="Boschloo", p=fewer_failures_p(*counts), effect=reduction, ci=ci)
    if not theirs.losses:
        return replace(bare, test="worst rank", p=arm.worst_rank_p)
    margin = 1.0 if name == "better_loss" else rules.loss_margin
    low, high = (ours.losses, theirs.losses) if rules.higher_is_better else (theirs.losses, ours.losses)
    ratio = _loss_ratio(theirs.losses, ours.losses)
    return replace(
        bare,
        test="Mann-Whitney" if margin == 1.0 else f"Mann-Whitney, margin {margin:g}",
        p=lower_loss_p(low, high, margin),
        effect=ratio.ratio if ratio else None,
        ci=ratio.interval if ratio else None,
    )


_loss_ratio = lru_cache(maxsize=16)(hodges_lehmann_ratio)  # two criteria ask for the same one


def _with_support(
    criterion: Criterion,
    all_criteria: Sequence[Criterion],
    compared: Sequence[str],
    summaries: Mapping[str, ArmSummary],
    control: str,
    rules: Rules,
) -> Criterion:
    if criterion.state is State.UNTESTABLE:
        return replace(criterion, p=None)
    poor = _is_poor(summaries[criterion.arm], summaries[control], rules)
    detail = criterion.detail + ("; amplitude SSIM too far below control's (quality)" if poor else "")
    if criterion.name == "no_nonfinite":
        return replace(criterion, detail=detail, supported=criterion.state is State.MET and not poor)
    family = {
        c.arm: c.p
        for c in all_criteria
        if c.name == criterion.name and c.state is not State.UNTESTABLE and c.p is not None and c.arm in compared
    }
    p = criterion.p
    if criterion.arm in family:
        p = dict(zip(family, holm(list(family.values())), strict=True))[criterion.arm]
    supported = criterion.state is State.MET and p is not None and p <= rules.alpha and not poor
    return replace(criterion, detail=detail, p=p, supported=supported)


def _is_poor(arm: ArmSummary, control: ArmSummary, rules: Rules) -> bool:
    ours, theirs = arm.median_ssim_amp, control.median_ssim_amp
    return ours is not None and theirs is not None and ours < theirs - rules.least_quality


def _detail(name: str, control: Tally, arm: Tally) -> str:
    if name == "fewer_failures":
        return f"{arm.failed}/{arm.n} failed, control {control.failed}/{control.n}"
    if name == "no_nonfinite":
        return f"{arm.nonfinite} of {arm.n} nonfinite"
    counts = f"n_ok {arm.ok}/{arm.n}, control {control.ok}/{control.n}"
    if arm.median is None or control.median is None:
        return f"{'the arm' if arm.median is None else 'control'} has no success ({counts})"
    return f"medians {arm.median:.4g}, control {control.median:.4g} ({counts})"


def deep_reports(
    stage_b: Stage, in_a: Mapping[str, ArmSummary], in_b: Mapping[str, ArmSummary], rules: Rules
) -> Iterable[Criterion]:
    """What Stage B reports of each arm beside its criteria: bounded gradients, and Stage A's quality."""
    for name, b in in_b.items():
        ratios = [t.grad_ratio for t in stage_b.arm(name) if t.counts and t.grad_ratio is not None]
        bounded = sum(ratio <= rules.grad_bound for ratio in ratios)
        state = _met(bounded == len(ratios)) if ratios else State.UNTESTABLE
        detail = f"gradient p99 at most {rules.grad_bound:g} times its median in {bounded} of {len(ratios)} trials"
        yield Criterion("b", name, "grad_bounded", state, detail, decides=False)

        a = in_a.get(name)
        state, detail = State.UNTESTABLE, "no success to compare in both stages"
        if a and a.median is not None and b.median is not None:
            better = b.median >= a.median if rules.higher_is_better else b.median <= a.median
            detail = f"medians {b.median:.4g}, Stage A {a.median:.4g}"
            if a.median_ssim_amp is not None and b.median_ssim_amp is not None:
                state = _met(better and b.median_ssim_amp >= a.median_ssim_amp)
                detail += f"; amplitude SSIM {b.median_ssim_amp:.3f}, Stage A {a.median_ssim_amp:.3f}"
        yield Criterion("b", name, "matches_stage_a", state, detail, decides=False)
