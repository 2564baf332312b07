"""The criteria: an arm against control, within one stage.

Each is judged twice. Its state follows from the observed numbers alone. Whether those numbers could
be luck is the test's to say: Boschloo's for failure rates, Mann-Whitney's for losses, each one-sided
and with Holm's correction over the candidates that can be tested.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from fnostab.decision.rules import Roles, Rules
from fnostab.decision.tally import ArmSummary, Stage, Tally
from fnostab.stats.losses import hodges_lehmann_ratio, lower_loss_p
from fnostab.stats.proportions import clopper_pearson_upper, fewer_failures_p, holm, newcombe_difference

__all__ = [
    "CRITERIA",
    "Criterion",
    "State",
    "States",
    "Tallies",
    "stage_criteria",
    "state_of",
    "states_of",
    "why_untestable",
]


class State(StrEnum):
    """What the observed numbers say of a criterion."""

    MET = "met"
    NOT_MET = "not_met"
    UNTESTABLE = "untestable"

    @classmethod
    def of(cls, holds: bool) -> "State":
        """Met if it holds."""
        return cls.MET if holds else cls.NOT_MET


Tallies = Mapping[str, Mapping[str, Tally]]  # stage -> arm -> tally
States = Mapping[tuple[str, str, str], State]  # (stage, arm, criterion) -> state


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
    return State.of(arm.failed * control.n < control.failed * arm.n)


def _no_nonfinite(control: Tally, arm: Tally, rules: Rules) -> State:
    return State.of(not arm.nonfinite)


def _better_loss(control: Tally, arm: Tally, rules: Rules) -> State:
    return _compare_losses(control, arm, rules, lambda better, worse: better < worse)


def _loss_within(control: Tally, arm: Tally, rules: Rules) -> State:
    return _compare_losses(control, arm, rules, lambda better, worse: better <= max(worse, rules.loss_margin * worse))


def _compare_losses(control: Tally, arm: Tally, rules: Rules, holds: Callable[[float, float], bool]) -> State:
    ours, theirs = arm.median, control.median
    if not arm.ok:
        return State.NOT_MET
    if not control.ok:  # by worst rank
        return State.MET
    if ours is None or theirs is None:
        return State.UNTESTABLE
    return State.of(holds(theirs, ours) if rules.higher_is_better else holds(ours, theirs))


CRITERIA: Mapping[str, Callable[[Tally, Tally, Rules], State]] = {
    "fewer_failures": _fewer_failures,
    "better_loss": _better_loss,
    "loss_within_10pct": _loss_within,
    "no_nonfinite": _no_nonfinite,
}


def state_of(name: str, control: Tally, arm: Tally, rules: Rules) -> State:
    """State of a criterion."""
    if min(control.n, arm.n) < rules.least_trials:
        return State.UNTESTABLE
    state = CRITERIA[name](control, arm, rules)
    return State.UNTESTABLE if state is not _were_all_to_end(name, control, arm, rules) else state


def states_of(roles: Roles, tallies: Tallies, rules: Rules) -> States:
    """State of every criterion of the candidates that were run."""
    return {
        (stage, arm, name): state_of(name, arms[roles.control], arms[arm], rules)
        for stage, arms in tallies.items()
        for arm in roles.candidates
        if arm in arms
        for name in roles.criteria(arm, stage)
    }


def why_untestable(name: str, control: Tally, arm: Tally, rules: Rules) -> str:
    """Why a criterion can't be tested, in words; empty if it can."""
    if state_of(name, control, arm, rules) is not State.UNTESTABLE:
        return ""
    if min(control.n, arm.n) < rules.least_trials:
        return f"needs {rules.least_trials} training outcomes each, has control {control.n}, arm {arm.n}"
    if CRITERIA[name](control, arm, rules) is not _were_all_to_end(name, control, arm, rules):
        excluded = control.excluded + arm.excluded
        return f"{excluded} excluded trial{'s' if excluded > 1 else ''} could change it (exclusions)"
    return "neither failed" if name == "fewer_failures" else "the losses of the successes are not known"


def _were_all_to_end(name: str, control: Tally, arm: Tally, rules: Rules) -> State:
    """The state, had the arm's excluded trials failed and control's succeeded."""
    judge = CRITERIA[name]
    if not (control.excluded or arm.excluded):
        return judge(control, arm, rules)
    return judge(control.excluded_as_successes(), arm.excluded_as_failures(), rules)


# With their tests


def stage_criteria(stage: Stage, roles: Roles, rules: Rules, summaries: Mapping[str, ArmSummary]) -> list[Criterion]:
    """Every criterion for every arm of a stage but control; ``summaries`` are those of its arms."""
    control = Tally.of(stage.arm(roles.control))
    arms = [arm for arm in stage.arms if arm != roles.control]
    found = []
    for arm in arms:
        tally = Tally.of(stage.arm(arm))
        for name in CRITERIA:
            state, problem = state_of(name, control, tally, rules), why_untestable(name, control, tally, rules)
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
    if not theirs.ok:
        return replace(bare, test="worst rank", p=arm.worst_rank_p)
    margin = 1.0 if name == "better_loss" else rules.loss_margin
    low, high = (ours.losses, theirs.losses) if rules.higher_is_better else (theirs.losses, ours.losses)
    has_ratio = all(loss > 0 for loss in (*theirs.losses[:1], *ours.losses[:1]))  # the least of each
    ratio = _loss_ratio(theirs.losses, ours.losses) if has_ratio else None
    return replace(
        bare,
        test="Mann-Whitney" if name == "better_loss" else f"Mann-Whitney, margin {margin:g}",
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


def _failed(tally: Tally) -> str:
    upper = None if tally.failed else clopper_pearson_upper(tally.n)
    return f"{tally.failed}/{tally.n} failed" + ("" if upper is None else f" (below {upper:.0%} at 95 %)")


def _detail(name: str, control: Tally, arm: Tally) -> str:
    if name == "fewer_failures":
        return f"{_failed(arm)}, control {_failed(control)}"
    if name == "no_nonfinite":
        return f"{arm.nonfinite} of {arm.n} nonfinite"
    counts = f"n_ok {arm.ok}/{arm.n}, control {control.ok}/{control.n}"
    if not (arm.ok and control.ok):
        return f"{'the arm' if not arm.ok else 'control'} has no success ({counts})"
    if arm.median is None or control.median is None:
        return counts
    return f"medians {arm.median:.4g}, control {control.median:.4g} ({counts})"
