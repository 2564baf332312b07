"""Derive the verdict of a study with roles, and its reason, from the states of its criteria."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fnostab.decision.answers import Answer
from fnostab.decision.criteria import Criterion, State
from fnostab.decision.rules import Roles, Rules
from fnostab.decision.tally import Stage
from fnostab.decision.words import and_list

IN_WORDS = {
    "fewer_failures": "fewer failures",
    "better_loss": "{better} {metric}",
    "loss_within_margin": "{metric} within the margin",
    "no_nonfinite": "finite values throughout",
    "grad_bounded": "bounded gradients",
    "matches_stage_a": "Stage A's {metric}",
}


class VerdictName(StrEnum):
    """Name of the verdict of a study with roles."""

    GOLD = "GOLD"
    SILVER = "SILVER"
    PIVOT = "PIVOT"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Conclusion:
    """Name of a verdict, whether the tests support it, its reason, and the chosen arm."""

    name: VerdictName | None = None
    supported: bool | None = None
    reason: str = ""
    winner: str | None = None


@dataclass(frozen=True)
class _Findings:
    """Criteria and answers, by stage and arm."""

    roles: Roles
    stages: Mapping[str, Stage]
    criteria: Mapping[tuple[str, str, str], Criterion]
    answers: Mapping[tuple[str, str], Answer]
    rules: Rules

    def of(self, arm: str, stage: str) -> list[Criterion | None]:
        """Criteria that a candidate must meet in a stage; None for each that was not judged."""
        return [self.criteria.get((stage, arm, name)) for name in self.rules.criteria(self.roles, arm, stage)]

    def ran(self, arm: str, stage: str) -> bool:
        return stage in self.stages and bool(self.stages[stage].arm(arm))


def conclude(
    roles: Roles, stages: Mapping[str, Stage], criteria: Sequence[Criterion], answers: Sequence[Answer], rules: Rules
) -> Conclusion:
    """Return the first verdict whose conditions hold, for a study with at least one candidate."""
    found = _Findings(
        roles, stages, {(c.stage, c.arm, c.name): c for c in criteria}, {(a.stage, a.arm): a for a in answers}, rules
    )
    return (
        _gold(found)
        or _silver(found)
        or _pivot(found)
        or Conclusion(VerdictName.INCONCLUSIVE, reason=_what_blocks(found))
    )


def _gold(found: _Findings) -> Conclusion | None:
    arm = found.roles.architecture
    if arm is None:
        return None
    needed = [*found.of(arm, "a"), *found.of(arm, "b")]
    if not all(c is not None and c.state is State.MET for c in needed):
        return None
    supported = all(c is not None and c.supported for c in needed) and not _quality_worse(found, arm, "ab")
    gain = _words("better_loss", found.rules)
    reason = (
        f"{arm} fails less often than {found.roles.control} in both stages, reaches a {gain}, "
        f"and was never nonfinite{_quality_text(found, arm, 'ab')}{_luck_text(found, needed)}"
    )
    return Conclusion(VerdictName.GOLD, supported, reason, arm)


def _silver(found: _Findings) -> Conclusion | None:
    first, second = found.roles.architecture, found.roles.clipping
    if first is None or second is None:
        return None
    of_first = [*found.of(first, "a"), *found.of(first, "b")]
    broken = [c for c in of_first if c is not None and c.state is State.NOT_MET]
    needed = found.of(second, "a")
    vetoes = [c for c in found.of(second, "b") if c is not None and c.state is State.NOT_MET]
    if not broken or vetoes or not all(c is not None and c.state is State.MET for c in needed):
        return None
    answer = found.answers.get(("a", first))
    first_helps = answer is not None and answer.helps
    supported = all(c is not None and c.supported for c in needed) and not first_helps
    supported = supported and not _quality_worse(found, second, "a")
    lacks = and_list([_words(c.name, found.rules) for c in broken])
    shown = f"shown to fail less often and only lacks: {lacks}" if first_helps else "not shown to help"
    deep = "" if found.ran(second, "b") else "; not tested at depth"
    reason = (
        f"{first} is {shown}, while {second} fails less often than {found.roles.control} at a {found.rules.metric} "
        f"within the margin{_quality_text(found, second, 'a')}{deep}{_luck_text(found, needed)}"
    )
    return Conclusion(VerdictName.SILVER, supported, reason, second)


def _pivot(found: _Findings) -> Conclusion | None:
    candidates = found.roles.candidates
    if "b" not in found.stages or not any(t.failed for t in found.stages["b"].arm(found.roles.control)):
        return None
    deep = [arm for arm in candidates if found.ran(arm, "b")]
    states = [found.criteria.get(("b" if arm in deep else "a", arm, "fewer_failures")) for arm in candidates]
    if not deep or not all(c is not None and c.state is State.NOT_MET for c in states):
        return None
    answers = [found.answers.get(("b", arm)) for arm in candidates]
    supported = all(answer is not None and answer.is_no for answer in answers)
    verb = "helps" if supported else "fails less often"
    reason = f"{found.roles.control} fails in Stage B, and none of its candidates {verb} there: {and_list(candidates)}"
    return Conclusion(VerdictName.PIVOT, supported, reason)


def _quality_worse(found: _Findings, arm: str, stages: str) -> list[str]:
    answers = [found.answers.get((stage, arm)) for stage in stages]
    metric = found.rules.metric
    return [d.name for a in answers if a is not None for d in a.worse if d.name != metric]


def _quality_text(found: _Findings, arm: str, stages: str) -> str:
    worse = list(dict.fromkeys(_quality_worse(found, arm, stages)))
    return f", but its {and_list(worse)} is shown to be worse" if worse else ""


def _luck_text(found: _Findings, met: Sequence[Criterion | None]) -> str:
    """Clause on criteria that are met and not significant, by stage; empty if there are none."""
    stages: dict[str, list[str]] = {}
    for c in met:
        if c is not None and not c.supported:
            stages.setdefault(c.stage, []).append(_words(c.name, found.rules))
    luck = [f"{and_list(names)} in Stage {stage.upper()}" for stage, names in stages.items()]
    return f"; {and_list(luck)} could be luck" if luck else ""


def _what_blocks(found: _Findings) -> str:
    """List the criteria that each candidate fails and those that can't be tested."""
    return "; ".join(_of_candidate(found, arm) for arm in found.roles.candidates)


def _of_candidate(found: _Findings, arm: str) -> str:
    parts: list[str] = []
    for stage in "ab":
        where = f"Stage {stage.upper()}"
        if not found.ran(arm, stage):
            parts.append(f"not run in {where}")
            continue
        if other := found.stages[stage].repeated(found.roles.control).get(arm):
            parts.append(f"has the settings of {other} in {where}")
            continue
        needed = [c for c in found.of(arm, stage) if c is not None]
        lacking = [_words(c.name, found.rules) for c in needed if c.state is State.NOT_MET]
        open_ones = [_words(c.name, found.rules) for c in needed if c.state is State.UNTESTABLE]
        if not lacking and not open_ones:
            parts.append(f"meets its criteria in {where}")
        parts += [f"does not show {and_list(lacking)} in {where}"] if lacking else []
        parts += [f"{and_list(open_ones)} can't be tested in {where}"] if open_ones else []
    return f"{arm}: {', '.join(parts)}"


def _words(name: str, rules: Rules) -> str:
    return IN_WORDS[name].format(metric=rules.metric, better=rules.better)
