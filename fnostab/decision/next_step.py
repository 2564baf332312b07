"""Choose the next step after a verdict, as data from which a command is built."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fnostab.decision.answers import Answer, AnswerName, Because
from fnostab.decision.conclusion import Conclusion, VerdictName
from fnostab.decision.criteria import State, state_of
from fnostab.decision.oversights import all_failed, lacks_metric, rules_judged_in_part
from fnostab.decision.pairs import Pair
from fnostab.decision.rules import Roles
from fnostab.decision.tally import Stage
from fnostab.decision.words import and_list
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted

FEW_SEEDS = 10  # per arm, suggested if there are too few
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
    """Next step after a verdict.

    Attributes:
        seeds: seeds that each arm should have afterwards: a count from 0 on, or a list.
        retry_oom: whether to rerun trials that ran out of memory.
        broke: whether to rerun trials that ended with an error, which `fnostab run` may have given up.
    """

    kind: NextKind
    text: str
    stage: str = "a"
    arms: tuple[str, ...] = ()
    seeds: int | tuple[int, ...] | None = None
    retry_oom: bool = False
    broke: bool = False


def next_step(
    roles: Roles, stages: Mapping[str, Stage], pairs: Pairs, answers: Sequence[Answer], conclusion: Conclusion
) -> NextStep:
    """Return the first step that applies; the conclusion of a study without roles has no name."""
    step = (
        _wait(stages)
        or _rerun(roles, stages, answers)
        or _judge_alike(stages)
        or _check_failures(stages, answers, conclusion)
        or _check_metric(stages, answers, conclusion)
        or _too_few(roles, stages, answers)
        or _not_comparable(answers)
        or _final(conclusion, stages)
        or _more_seeds(roles, stages, answers, conclusion)
        or _other_remedy(roles, answers)
        or stage_b_step(roles, stages, pairs, answers, conclusion)
        or _elsewhere(roles, stages, pairs, answers)
    )
    is_deep = step.stage == "b" and step.kind in (NextKind.RERUN, NextKind.SEEDS)
    return replace(step, text=f"{step.text} in Stage B") if is_deep else step


def _wait(stages: Mapping[str, Stage]) -> NextStep | None:
    for name, stage in stages.items():
        running = sum(trial.outcome is Outcome.RUNNING for trial in stage.trials)
        if running:
            many = counted(running, "trial still runs", "trials still run")
            return NextStep(NextKind.WAIT, f"wait, {many}", name)
    return None


def _rerun(roles: Roles, stages: Mapping[str, Stage], answers: Sequence[Answer]) -> NextStep | None:
    for name, stage in stages.items():
        if blocked := [a.arm for a in answers if a.stage == name and a.because is Because.PENDING]:
            return rerun(stage, [arm for arm in (roles.control, *blocked) if arm in pending_arms(stage)])
    return None


def pending_arms(stage: Stage) -> list[str]:
    """Arms of a stage with trials that are missing or have no training outcome."""
    return [arm for arm in stage.arms if stage.missing(arm) or any(not t.counts for t in stage.arm(arm))]


def rerun(stage: Stage, arms: Sequence[str]) -> NextStep:
    """Rerun the trials of these arms that are missing or have no training outcome.

    What stops an arm may be mended in the code, which makes it another study, so that every arm is run again then.
    """
    lost = [t for arm in arms for t in stage.arm(arm) if t.excluded]
    n = len(lost) + sum(len(stage.missing(arm)) for arm in arms)
    many = "the trial" if n == 1 else f"the {n} trials"
    mend = _mend(stage, arms)
    text = f"{mend}rerun {many} of {and_list(arms)} without an outcome"
    broke = any(t.outcome is Outcome.INFRA_ERROR for t in lost)
    of = stage.arms if mend and broke else arms
    seeds, oom = _seeds(stage, of), _ran_out(stage, arms)
    return NextStep(NextKind.RERUN, text, stage.name, tuple(of), seeds=seeds, retry_oom=oom, broke=broke)


def _mend(stage: Stage, arms: Sequence[str]) -> str:
    """Text on arms where half of the trials broke or all ran out of memory, so that a rerun would not help.

    If a script ignores its seed, its first trial has an outcome and all others broke.
    """
    stops = (Outcome.INFRA_ERROR, Outcome.OOM)
    ends = {arm: Counter(t.outcome for t in stage.arm(arm)) for arm in arms}
    stopped = [
        arm
        for arm, ended in ends.items()
        if ended and (ended.keys() <= {*stops} or 2 * ended[Outcome.INFRA_ERROR] >= ended.total())
    ]
    if not stopped:
        return ""
    how = ", ".join(sorted({str(outcome) for arm in stopped for outcome in stops if ends[arm][outcome]}))
    return f"fix what stops {and_list(stopped)} ({how}), then "


def _ran_out(stage: Stage, arms: Sequence[str]) -> bool:
    return any(t.outcome is Outcome.OOM for arm in arms for t in stage.arm(arm))


def _seeds(stage: Stage, arms: Sequence[str] = (), *, more: int = 0, least: int = 0) -> int | tuple[int, ...]:
    """Seeds that these arms (by default all) should have: present and missing ones plus ``more``, at least ``least``.

    A number means the seeds from 0 on. If most of those do not occur, the seeds are listed.
    """
    seeds = {seed for arm in arms or stage.arms for seed in (*(t.seed for t in stage.arm(arm)), *stage.missing(arm))}
    upto = max(seeds) + 1
    if upto <= 2 * len(seeds):
        return max(upto + more, least)
    further = max(more, least - len(seeds))
    return (*sorted(seeds), *range(upto, upto + further))


def _judge_alike(stages: Mapping[str, Stage]) -> NextStep | None:
    """Have every arm record what the rules need, if failures could be detected in some trials only."""
    if not any(rules_judged_in_part(stage.trials) for stage in stages.values()):
        return None
    return NextStep(
        NextKind.ELSEWHERE, "record what the rules need in every arm: some trials were judged by fewer rules"
    )


def _check_metric(stages: Mapping[str, Stage], answers: Sequence[Answer], conclusion: Conclusion) -> NextStep | None:
    """Correct the metric of a study that has no value of it, unless failures decide the answer, or still may."""
    lacking = any(lacks_metric(s.trials) and not all(t.failed for t in s.trials if t.counts) for s in stages.values())
    failed = any(t.failed for stage in stages.values() for t in stage.trials)
    if conclusion.supported or not lacking or (failed and any(a.name is AnswerName.UNDECIDED for a in answers)):
        return None
    return NextStep(NextKind.ELSEWHERE, "correct the study's metric, or record it: no trial has a value of it")


def _check_failures(stages: Mapping[str, Stage], answers: Sequence[Answer], conclusion: Conclusion) -> NextStep | None:
    """Suggest checking the rules or settings of a study of which all trials failed, unless it has its verdict."""
    trials = [t for stage in stages.values() for t in stage.trials]
    if conclusion.supported or not answers or not all_failed(trials):
        return None
    text = "every trial of every arm failed: try an easier setting"
    if any(t.failed and t.outcome is not Outcome.NONFINITE for t in trials):
        text = "every trial of every arm failed: check what counts as a failure, or try an easier setting"
    return NextStep(NextKind.ELSEWHERE, text)


def _too_few(roles: Roles, stages: Mapping[str, Stage], answers: Sequence[Answer]) -> NextStep | None:
    few = [a for a in answers if a.because is Because.OBSTACLE and "too few" in a.obstacle]
    if not few:
        return None
    stage = few[0].stage
    arms = (roles.control, *(a.arm for a in few if a.stage == stage))
    seeds = _seeds(stages[stage], least=FEW_SEEDS)
    n = seeds if isinstance(seeds, int) else len(seeds)
    text = f"{_mend(stages[stage], arms)}run {counted(n, 'seed')} of {and_list(arms)}"
    return NextStep(NextKind.SEEDS, text, stage, arms, seeds, retry_oom=_ran_out(stages[stage], arms))


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
    """Run more seeds, at most doubling them, if an arm is undecided and they are likely to decide it; else None."""
    if conclusion.supported:
        return None
    wanted = roles.candidates or tuple(a.arm for a in answers)
    for name, stage in stages.items():
        forecasts = {a.arm: a.more for a in answers if a.stage == name and a.arm in wanted and a.more is not None}
        worth_it = {arm: more.extra for arm, more in forecasts.items() if more.is_worth_it and more.extra is not None}
        if worth_it:
            extra = max(worth_it.values())
            arms = (roles.control, *worth_it)
            seeds = _seeds(stage, more=extra)
            many = counted(extra, "more seed")
            if len({len(stage.arm(arm)) + len(stage.missing(arm)) for arm in arms}) > 1:  # some need more than others
                many = counted(seeds if isinstance(seeds, int) else len(seeds), "seed")
            text = f"run {many} of {and_list(arms)}"
            return NextStep(NextKind.SEEDS, text, name, arms, seeds)
    return None


def _other_remedy(roles: Roles, answers: Sequence[Answer]) -> NextStep | None:
    if all_harm(roles, answers):
        verb = "harm" if len(roles.candidates) > 1 else "harms"
        return NextStep(NextKind.ELSEWHERE, f"look for another remedy: {and_list(roles.candidates)} {verb}")
    return None


def all_harm(roles: Roles, answers: Sequence[Answer]) -> bool:
    """Whether every candidate harms in Stage A."""
    harming = {a.arm for a in answers if a.stage == "a" and a.name is AnswerName.HARMS}
    return bool(roles.candidates) and set(roles.candidates) <= harming


def stage_b_step(
    roles: Roles, stages: Mapping[str, Stage], pairs: Pairs, answers: Sequence[Answer], conclusion: Conclusion
) -> NextStep | None:
    """Run Stage B with control and the open candidates; None if all were run there, or all harm in Stage A."""
    if not roles.candidates or all_harm(roles, answers):
        return None
    out = {
        pair.arm
        for pair in pairs["a"]
        if pair.arm in roles.candidates
        and any(state_of(name, pair) is State.NOT_MET for name in roles.criteria(pair.arm, "a"))
    }
    ran = [arm for arm in roles.candidates if arm in stages["a"].compared(roles.control)]
    arms = (roles.control, *(arm for arm in ran if arm not in out))
    if conclusion.winner and conclusion.winner not in arms:
        arms = (*arms, conclusion.winner)
    deep = stages["b"].arms if "b" in stages else []
    if set(arms) <= set(deep):
        control_fails_deep = any(t.failed for t in stages["b"].arm(roles.control))
        if not control_fails_deep or any(arm in deep for arm in roles.candidates):
            return None
        arms = (roles.control, *ran)  # only control was run there, and it fails
    return NextStep(NextKind.STAGE_B, f"run Stage B with {and_list(arms)}", "b", arms)


def _elsewhere(roles: Roles, stages: Mapping[str, Stage], pairs: Pairs, answers: Sequence[Answer]) -> NextStep:
    if not answers:
        for name, stage in stages.items():
            if others := {arm: seeds for arm, seeds in stage.not_run.items() if arm not in stage.same_settings}:
                text = f"{_mend(stage, [roles.control])}run {and_list(list(others))} as well"
                seeds = tuple(sorted({seed for of_arm in others.values() for seed in of_arm}))
                return NextStep(NextKind.SEEDS, text, name, (roles.control, *others), seeds)
        only = all(stage.arms == [roles.control] for stage in stages.values())
        why = f"there is only {roles.control}" if only else f"all have the settings of {roles.control}"
        return NextStep(NextKind.ELSEWHERE, f"run another arm: {why}")
    fails = any(t.failed for stage in stages.values() for t in stage.arm(roles.control))
    all_harmful = all(a.name is AnswerName.HARMS for a in answers)
    if not fails and not all_harmful and not any(a.helps for a in answers):
        text = f"{roles.control} did not fail: try a harder setting, where it does"
        if not all(pair.rules.failure_judged for of_stage in pairs.values() for pair in of_stage):
            text = "say when a trial has failed: failure is not judged"
        return NextStep(NextKind.ELSEWHERE, text + _or_seeds(roles, answers))
    if any(a.name is AnswerName.UNDECIDED for a in answers):
        text = "try a setting or an arm where the difference is larger"
        return NextStep(NextKind.ELSEWHERE, text + _or_seeds(roles, answers))
    return NextStep(NextKind.NOTHING, "nothing more to run: every arm has an answer")


def _or_seeds(roles: Roles, answers: Sequence[Answer]) -> str:
    """Text on the fewest seeds likely to decide an arm, if they more than double the present ones."""
    forecasts = {(a.stage, a.arm): a.more.extra for a in answers if a.more is not None and a.more.extra is not None}
    if not forecasts:
        return ""
    extra = min(forecasts.values())
    stage = min(stage for (stage, _), n in forecasts.items() if n == extra)
    arms = (roles.control, *(arm for (where, arm), n in forecasts.items() if (where, n) == (stage, extra)))
    at = f" in Stage {stage.upper()}" if roles.candidates else ""
    return f"; or run {counted(extra, 'more seed')} of {and_list(arms)}{at}"
