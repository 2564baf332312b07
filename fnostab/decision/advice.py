"""What stands in the way of a verdict, and what to run next."""

from fnostab.decision.criteria import State, States, Tallies, state_of, states_of, why_untestable
from fnostab.decision.more_seeds import more_seeds
from fnostab.decision.rules import Roles, Rules

__all__ = ["blocking", "next_step", "seeds_step"]


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


def next_step(roles: Roles, tallies: Tallies, rules: Rules) -> str:
    """What to run where the verdict is INCONCLUSIVE."""
    if not roles.candidates:
        return "name roles in the study to have a verdict"
    control, states = roles.control, states_of(roles, tallies, rules)
    deep = tallies.get("b", {})
    passing = [arm for arm in roles.candidates if _passes(arm, "a", roles, states)]
    if not deep and not passing:
        return f"run Stage B with {control}"
    if roles.architecture in passing and roles.architecture not in deep:
        return f"run Stage B with {roles.architecture}, and {control} to compare it with"
    if not any(arms[control].failed for arms in tallies.values()):
        return (
            f"{control} failed in no stage, so there is nothing to cure at this depth: crash_hunt, or a greater depth"
        )
    if absent := [arm for arm in roles.candidates if arm not in tallies["a"]]:
        return f"run Stage A with {', '.join(absent)}"
    if deep and deep[control].failed and not any(arm in deep for arm in roles.candidates):
        return f"run Stage B with {', '.join(roles.candidates)}"
    if State.UNTESTABLE in states.values():
        return seeds_step(roles, tallies, rules)
    return f"try another candidate, or {seeds_step(roles, tallies, rules)}"


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
