"""What stands in the way of a verdict, and what to run next."""

from dataclasses import dataclass

from fnostab.decision.criteria import State, States, Tallies, state_of, states_of, why_untestable
from fnostab.decision.more_seeds import more_seeds
from fnostab.decision.rules import Roles, Rules

__all__ = ["NextStep", "blocking", "next_step", "not_out", "seeds_step"]


@dataclass(frozen=True)
class NextStep:
    """What to run next, in words; and the arms of Stage B if that is what is to be run."""

    text: str
    stage_b: tuple[str, ...] = ()


def blocking(roles: Roles, tallies: Tallies, rules: Rules) -> str:
    """For each candidate, the criteria that it does not meet, and why those can't be tested that can't."""
    if not roles.candidates:
        return "the study gives no arm a part in the decision (roles), so its criteria stand for themselves"
    return "; ".join(f"{arm}: {_of_candidate(arm, roles, tallies, rules)}" for arm in roles.candidates)


def _of_candidate(arm: str, roles: Roles, tallies: Tallies, rules: Rules) -> str:
    blocks: list[str] = []
    passed: list[str] = []
    for stage in "ab":
        where = f"Stage {stage.upper()}"
        if arm not in tallies.get(stage, {}):
            blocks.append(f"not run in {where}")
            continue
        control, tally = tallies[stage][roles.control], tallies[stage][arm]
        missing: dict[str, list[str]] = {}
        for name in roles.criteria(arm, stage):
            state = state_of(name, control, tally, rules)
            if state is not State.MET:
                why = why_untestable(name, control, tally, rules)
                missing.setdefault(f"{state} in {where}{f' ({why})' if why else ''}", []).append(name)
        blocks += [f"{', '.join(names)} {how}" for how, names in missing.items()]
        if not missing:
            passed.append(f"passes {where}")
    if arm == roles.clipping and passed[:1] == ["passes Stage A"]:
        need = f"{roles.architecture} has failed no criterion" if roles.architecture else "no arm is the architecture"
        blocks.append(f"SILVER needs a failed architecture, and {need}")
    return ", ".join(passed + blocks)


def next_step(roles: Roles, tallies: Tallies, rules: Rules) -> NextStep:
    """What to run where the verdict is INCONCLUSIVE."""
    if not roles.candidates:
        return NextStep("name roles in the study to have a verdict")
    control, states = roles.control, states_of(roles, tallies, rules)
    deep = tallies.get("b", {})
    passing = [arm for arm in roles.candidates if _passes(arm, "a", roles, states)]
    if not deep and not passing:
        return NextStep(f"run Stage B with {control}", not_out(roles, tallies, rules))
    if roles.architecture in passing and roles.architecture not in deep:
        text = f"run Stage B with {roles.architecture}, and {control} to compare it with"
        return NextStep(text, not_out(roles, tallies, rules))
    if not any(arms[control].failed for arms in tallies.values()):
        return NextStep(
            f"{control} failed in no stage, so there is nothing to cure at this depth: crash_hunt, or a greater depth"
        )
    if absent := [arm for arm in roles.candidates if arm not in tallies["a"]]:
        return NextStep(f"run Stage A with {', '.join(absent)}")
    if deep and deep[control].failed and not any(arm in deep for arm in roles.candidates):
        return NextStep(f"run Stage B with {', '.join(roles.candidates)}", (control, *roles.candidates))
    if State.UNTESTABLE in states.values():
        return NextStep(seeds_step(roles, tallies, rules))
    return NextStep(f"try another candidate, or {seeds_step(roles, tallies, rules)}")


def not_out(roles: Roles, tallies: Tallies, rules: Rules) -> tuple[str, ...]:
    """Control, and the candidates that were run in Stage A and do not fail a criterion of it."""
    states = states_of(roles, {"a": tallies["a"]}, rules)
    out = {arm for (_, arm, _), state in states.items() if state is State.NOT_MET}
    return (roles.control, *(arm for arm in roles.candidates if arm in tallies["a"] and arm not in out))


def seeds_step(roles: Roles, tallies: Tallies, rules: Rules) -> str:
    """How many more seeds it takes."""
    few = {
        f"{arm} in Stage {stage.upper()}": rules.least_trials - tally.n
        for stage, arms in tallies.items()
        for arm, tally in arms.items()
        if arm in (roles.control, *roles.candidates) and tally.n < rules.least_trials
    }
    if few:
        least = ", ".join(f"{missing} more of {where}" for where, missing in few.items())
        return f"run more seeds: at least {least}"
    return f"run more seeds: {'; '.join(map(str, more_seeds(roles, tallies, rules)))}"


def _passes(arm: str, stage: str, roles: Roles, states: States) -> bool:
    return all(states.get((stage, arm, name)) is State.MET for name in roles.criteria(arm, stage))
