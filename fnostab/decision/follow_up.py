"""Choose the study that follows the verdict of a study with roles."""

from dataclasses import dataclass
from typing import Literal

from fnostab.decision.conclusion import VerdictName
from fnostab.decision.criteria import State
from fnostab.decision.next_step import all_harm
from fnostab.decision.rules import Roles
from fnostab.decision.verdict import Verdict


@dataclass(frozen=True)
class FollowUp:
    """Next study: its kind, its arms (empty for all) and the reason.

    Attributes:
        kind: Stage B; another remedy, if nothing helps; or a depth at which control fails.
    """

    kind: Literal["stage_b", "another_remedy", "where_control_fails"]
    why: str
    arms: tuple[str, ...] = ()


def follow_up(verdict: Verdict, roles: Roles) -> FollowUp | None:
    """Choose the study after a verdict on Stage A or on both stages; None if the chain ends here."""
    if verdict.stage_b:
        first = f"{verdict.winner} won Stage A" if verdict.winner else "Stage A leaves it open"
        why = f"{first}; arms not ruled out: {', '.join(verdict.stage_b)}"
        return FollowUp("stage_b", why, verdict.stage_b)
    if verdict.name is VerdictName.PIVOT:
        return FollowUp("another_remedy", verdict.reason)
    if all_harm(roles, verdict.answers):
        return FollowUp("another_remedy", f"every candidate harms: {', '.join(roles.candidates)}")
    if roles.candidates and all(_fails_deep(verdict, roles, arm) for arm in roles.candidates):
        return FollowUp("another_remedy", f"every candidate fails the deep test: {', '.join(roles.candidates)}")
    if not any(s.n_failed for s in verdict.arms if s.stage == "a" and s.arm == roles.control):
        return FollowUp("where_control_fails", f"{roles.control} never failed in Stage A: nothing to cure there")
    return None


def _fails_deep(verdict: Verdict, roles: Roles, arm: str) -> bool:
    """Whether an arm does not meet a criterion of its role in Stage B."""
    needed = verdict.rules.criteria(roles, arm, "b")
    of_arm = [c for c in verdict.criteria if (c.stage, c.arm) == ("b", arm) and c.name in needed]
    return any(c.state is State.NOT_MET for c in of_arm)
