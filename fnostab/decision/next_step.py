"""Choose the next step after a verdict: one step, as data from which a command is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fnostab.decision.answers import Answer, AnswerName, Because
from fnostab.decision.conclusion import Conclusion, VerdictName
from fnostab.decision.criteria import State, state_of
from fnostab.decision.pairs import Pair
from fnostab.decision.rules import Roles
from fnostab.decision.tally import Stage
from fnostab.decision.words import and_list
from fnostab.record.outcomes import Outcome

__all__ = ["NextKind", "NextStep", "next_step", "stage_b_step"]

FEW_SEEDS = 10  # an arm, to which too few are raised
Pairs = Mapping[str, Sequence[Pair]]


class NextKind(StrEnum):
    """Kind of a next step."""

    WAIT = "wait"
    RERUN = "rerun"
    SEEDS = "seeds"
    STAGE_B = "stage_b"
    ELSEWHERE = "elsewhere"
    NOTHING = "nothing"


@dataclass(frozen=True)
class NextStep:
    """The next step.

    Attributes:
        text: the step in words.
        stage: stage that it is about.
        arms: arms to run.
        seeds: number of seeds that each arm should have afterwards.
        retry_oom: whether trials that ran out of memory are to be run again.
    """

    kind: NextKind
    text: str
    stage: str = "a"
    arms: tuple[str, ...] = ()
    seeds: int | None = None
    retry_oom: bool = False


def next_step(
    roles: Roles, stages: Mapping[str, Stage], pairs: Pairs, answers: Sequence[Answer], conclusion: Conclusion
) -> NextStep:
    """Return the first step that applies.

    Args:
        roles: roles of the study.
        stages: stages by name.
        pairs: pairs of each stage.
        answers: answers of all stages.
        conclusion: the verdict; without a name for a study without roles.
    """
    return (
        _wait(stages)
        or _rerun(roles, stages, answers)
        or _too_few(roles, stages, answers)
        or _not_comparable(answers)
        or _final(conclusion, stages)
        or _more_seeds(roles, stages, answers, conclusion)
        or stage_b_step(roles, stages, pairs, conclusion)
        or _elsewhere(roles, stages, answers)
    )


def _wait(stages: Mapping[str, Stage]) -> NextStep | None:
    for name, stage in stages.items():
        running = sum(trial.outcome is Outcome.RUNNING for trial in stage.trials)
        if running:
            many = "1 trial still runs" if running == 1 else f"{running} trials still run"
            return NextStep(NextKind.WAIT, f"wait, {many}", name)
    return None


def _rerun(roles: Roles, stages: Mapping[str, Stage], answers: Sequence[Answer]) -> NextStep | None:
    for name in stages:
        blocked = [a.arm for a in answers if a.stage == name and a.because is Because.PENDING]
        if not blocked:
            continue
        arms = [arm for arm in (roles.control, *blocked) if _pending(stages[name], arm)]
        lost = [t for arm in arms for t in stages[name].arm(arm) if t.excluded]
        n = len(lost) + sum(len(stages[name].missing(arm)) for arm in arms)
        many = "the trial" if n == 1 else f"the {n} trials"
        text = f"run {many} of {and_list(arms)} without an outcome again"
        oom = any(t.outcome is Outcome.OOM for t in lost)
        seeds = _seeds(stages[name], arms)
        return NextStep(NextKind.RERUN, text, name, tuple(arms), seeds=seeds, retry_oom=oom)
    return None


def _pending(stage: Stage, arm: str) -> bool:
    return bool(stage.missing(arm)) or any(not t.counts for t in stage.arm(arm))


def _seeds(stage: Stage, arms: Sequence[str] = ()) -> int:
    """Number of seeds from 0 on that covers the trials and missing seeds of these arms, or of all."""
    seeds = (seed for arm in arms or stage.arms for seed in (*(t.seed for t in stage.arm(arm)), *stage.missing(arm)))
    return max(seeds) + 1


def _too_few(roles: Roles, stages: Mapping[str, Stage], answers: Sequence[Answer]) -> NextStep | None:
    few = [a for a in answers if a.because is Because.OBSTACLE and "too few" in a.obstacle]
    if not few:
        return None
    stage = few[0].stage
    arms = (roles.control, *(a.arm for a in few if a.stage == stage))
    seeds = max(FEW_SEEDS, _seeds(stages[stage]))
    return NextStep(NextKind.SEEDS, f"run {seeds} seeds of {and_list(arms)}", stage, arms, seeds)


def _not_comparable(answers: Sequence[Answer]) -> NextStep | None:
    if any(a.because is Because.OBSTACLE for a in answers):
        text = "run the arms for the same number of steps, or write `lengths: free` in the study"
        if any("repeats" in a.obstacle for a in answers):
            text = "run Stage B: its trials must not be those of Stage A"
        return NextStep(NextKind.ELSEWHERE, text)
    return None


def _final(conclusion: Conclusion, stages: Mapping[str, Stage]) -> NextStep | None:
    if not conclusion.supported or conclusion.name is None:
        return None
    if conclusion.name is VerdictName.PIVOT:
        return NextStep(NextKind.ELSEWHERE, "look for another remedy: none of these arms helps at depth", "b")
    winner = conclusion.winner or ""
    if conclusion.name is VerdictName.SILVER and not ("b" in stages and stages["b"].arm(winner)):
        return None
    return NextStep(NextKind.NOTHING, f"nothing more to run: use {winner}")


def _more_seeds(
    roles: Roles, stages: Mapping[str, Stage], answers: Sequence[Answer], conclusion: Conclusion
) -> NextStep | None:
    """Double the seeds, if an arm is undecided and that most likely gives an answer; else None."""
    if conclusion.supported:
        return None
    wanted = roles.candidates or tuple(a.arm for a in answers)
    for name, stage in stages.items():
        open_ones = [a for a in answers if a.stage == name and a.arm in wanted and a.more is not None]
        open_ones = [a for a in open_ones if a.more is not None and a.more.is_worth_it]
        if open_ones:
            extra = max(a.more.extra or 1 for a in open_ones if a.more is not None)
            arms = (roles.control, *(a.arm for a in open_ones))
            seeds = _seeds(stage) + extra
            text = f"run {extra} more seed{'s' if extra > 1 else ''} of {and_list(arms)}"
            return NextStep(NextKind.SEEDS, text, name, arms, seeds)
    return None


def stage_b_step(roles: Roles, stages: Mapping[str, Stage], pairs: Pairs, conclusion: Conclusion) -> NextStep | None:
    """Run Stage B with control and the candidates still in question; None if all of them were run there."""
    if not roles.candidates:
        return None
    out = {
        pair.arm
        for pair in pairs["a"]
        if pair.arm in roles.candidates
        and any(state_of(name, pair) is State.NOT_MET for name in roles.criteria(pair.arm, "a"))
    }
    ran = [arm for arm in roles.candidates if stages["a"].arm(arm)]
    arms = (roles.control, *(arm for arm in ran if arm not in out))
    if conclusion.winner and conclusion.winner not in arms:
        arms = (*arms, conclusion.winner)
    deep = stages["b"].arms if "b" in stages else []
    if set(arms) <= set(deep):
        control_fails_deep = any(t.failed for t in stages["b"].arm(roles.control))
        if not control_fails_deep or any(arm in deep for arm in roles.candidates):
            return None
        arms = (roles.control, *ran)  # control alone was run there, and fails
    return NextStep(NextKind.STAGE_B, f"run Stage B with {and_list(arms)}", "b", arms)


def _elsewhere(roles: Roles, stages: Mapping[str, Stage], answers: Sequence[Answer]) -> NextStep:
    fails = any(t.failed for stage in stages.values() for t in stage.arm(roles.control))
    if not fails and not any(a.helps for a in answers):
        text = f"{roles.control} did not fail: ask where it does, at a greater depth or a harder setting"
        return NextStep(NextKind.ELSEWHERE, text)
    if any(a.name is AnswerName.UNDECIDED for a in answers):
        return NextStep(NextKind.ELSEWHERE, "ask where the arms differ more: another depth, setting or arm")
    return NextStep(NextKind.NOTHING, "nothing more to run: every arm is answered")
