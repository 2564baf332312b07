"""The study that a verdict leads to."""

import pytest
from decision_helpers import GOLD, INCONCLUSIVE, PIVOT, ROLES, SILVER, arm, stage, verdict_of

from fnostab.decision import Roles, follow_up

CONTROL = arm("control", 5, 5, loss=1.0)
ARCH, CLIP = arm("arch", 10, loss=0.9), arm("clip", 10, loss=1.05)
ARCH_OUT, CLIP_OUT = arm("arch", 3, 7), arm("clip", 3, 7)
HARMLESS = [arm(name, 10) for name in ("control", "arch", "clip")]


@pytest.mark.parametrize(
    ("a", "name", "arms"),
    [
        ([CONTROL, ARCH, CLIP], INCONCLUSIVE, ("control", "arch", "clip")),
        ([CONTROL, ARCH, CLIP_OUT], INCONCLUSIVE, ("control", "arch")),
        ([CONTROL, ARCH_OUT, CLIP], SILVER, ("control", "clip")),
        ([CONTROL, ARCH_OUT, CLIP_OUT], INCONCLUSIVE, ("control",)),
        (HARMLESS, INCONCLUSIVE, ("control", "clip")),  # arch should have a lower loss, and has an equal one
    ],
)
def test_stage_a_leads_to_stage_b_with_control_and_what_is_not_out(a, name, arms):
    verdict = verdict_of(stage("a", *a))
    assert verdict.name is name
    found = follow_up(verdict, ROLES)
    assert (found.kind, found.arms) == ("stage_b", arms)
    assert verdict.stage_b == arms


def test_a_winner_is_named_as_the_reason():
    found = follow_up(verdict_of(stage("a", CONTROL, ARCH_OUT, CLIP)), ROLES)
    assert found.why == "clip won Stage A; arms not ruled out: control, clip"


def test_candidates_that_harm_need_no_deep_test():
    verdict = verdict_of(stage("a", arm("control", 10), arm("arch", 2, 8), arm("clip", 2, 8)))
    assert verdict.stage_b == ()
    found = follow_up(verdict, ROLES)
    assert (found.kind, found.why) == ("another_remedy", "every candidate harms: arch, clip")


def test_candidates_follow_when_control_alone_fails_at_depth():
    a = stage("a", CONTROL, ARCH_OUT, CLIP_OUT)
    verdict = verdict_of(a, stage("b", arm("control", 4, 6)))
    assert follow_up(verdict, ROLES).arms == ("control", "arch", "clip")


@pytest.mark.parametrize(
    ("a", "b", "name", "study"),
    [
        ([CONTROL, ARCH, CLIP], [CONTROL, ARCH, CLIP], GOLD, None),
        ([CONTROL, ARCH_OUT, CLIP], [CONTROL, CLIP], SILVER, None),
        ([CONTROL, ARCH_OUT, CLIP_OUT], [CONTROL, ARCH_OUT, CLIP_OUT], PIVOT, "another_remedy"),
        # both candidates fail at depth, where control does not
        ([CONTROL, ARCH, CLIP], [arm("control", 10), ARCH_OUT, CLIP_OUT], INCONCLUSIVE, "another_remedy"),
        (HARMLESS, HARMLESS, INCONCLUSIVE, "where_control_fails"),
        # one candidate is left, and only more seeds can tell
        ([CONTROL, ARCH, CLIP], [arm("control", 10), arm("arch", 10), arm("clip", 10)], INCONCLUSIVE, None),
    ],
)
def test_both_stages_lead_to_the_end_the_pivot_or_the_search_for_a_depth(a, b, name, study):
    verdict = verdict_of(stage("a", *a), stage("b", *b))
    found = follow_up(verdict, ROLES)
    assert (verdict.name, found and found.kind) == (name, study)


def test_more_seeds_of_one_arm_come_before_stage_b():
    verdict = verdict_of(stage("a", CONTROL, arm("arch", 2), CLIP))
    assert verdict.next_step == "run 10 seeds of control and arch"
    assert verdict.stage_b == ()
    assert follow_up(verdict, ROLES) is None


def test_a_study_without_candidates_leads_nowhere():
    assert follow_up(verdict_of(stage("a", CONTROL), roles=Roles("control")), Roles("control")) is None
