"""Which study a verdict leads to, as the strategy has it."""

from dataclasses import dataclass
from typing import Literal

from fnostab.decision.criteria import State
from fnostab.decision.rules import Roles
from fnostab.decision.verdict import Verdict, VerdictName

__all__ = ["FollowUp", "follow_up"]


@dataclass(frozen=True)
class FollowUp:
    """A study to run next, with the arms that it needs, and why; no arms: all of them."""

    study: Literal["stage_b", "layerscale", "crash_hunt"]
    why: str
    arms: tuple[str, ...] = ()


def follow_up(verdict: Verdict, roles: Roles) -> FollowUp | None:
    """The study that comes after a verdict on Stage A, or on both stages; None if the chain ends with it.

    Stage B, with what deserves it and has not run there. Then LayerScale if nothing helps at depth. Then
    the search for a depth at which control fails, if it failed nowhere at Stage A's.
    """
    deep = {summary.arm for summary in verdict.arms if summary.stage == "b"}
    if not deep.issuperset(verdict.stage_b):
        first = f"{verdict.winner} won Stage A" if verdict.winner else f"the verdict says: {verdict.next_step}"
        why = f"{first}; arms that are not out: {', '.join(verdict.stage_b)}"
        return FollowUp("stage_b", why, verdict.stage_b)
    if verdict.name is VerdictName.PIVOT:
        return FollowUp("layerscale", verdict.reason)
    if roles.candidates and all(_fails_deep(verdict, roles, arm) for arm in roles.candidates):
        return FollowUp("layerscale", f"every candidate fails the deep test: {', '.join(roles.candidates)}")
    if not any(s.n_failed for s in verdict.arms if s.stage == "a" and s.arm == roles.control):
        return FollowUp("crash_hunt", f"{roles.control} never failed at the depth of Stage A: nothing to cure there")
    return None


def _fails_deep(verdict: Verdict, roles: Roles, arm: str) -> bool:
    """Whether an arm fails one of the criteria of its part in Stage B."""
    of_arm = [c for c in verdict.criteria if (c.stage, c.arm) == ("b", arm) and c.name in roles.criteria(arm, "b")]
    return any(c.state is State.NOT_MET for c in of_arm)
