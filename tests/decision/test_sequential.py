"""Looks at a study before all its seeds have run."""

import numpy as np
import pytest
from decision_helpers import ROLES, arm, stage

from fnostab.decision import Roles, Rules
from fnostab.decision.sequential import Standing, judge_look, look_alpha
from fnostab.stats.proportions import fewer_failures_p, holm
from fnostab.stats.rate import Rate
from fnostab.stats.sequential import sequential_alpha, sequential_error_and_power

RULES = Rules(alpha=look_alpha([10, 20], 0.05, 2), looks_planned=True)


def standings(*arms, roles=ROLES, seeds=10, last=20):
    return {each.arm: each.standing for each in judge_look(roles, stage("a", *arms), RULES, seeds=seeds, last=last)}


def test_decided_futile_and_open():
    assert standings(arm("control", 3, 7), arm("arch", 10), arm("clip", 3, 7)) == {
        "arch": Standing.DECIDED,
        "clip": Standing.FUTILE,
    }
    assert standings(arm("control", 7, 3), arm("arch", 10), arm("clip", 9, 1))["arch"] is Standing.OPEN


def test_where_control_never_fails_there_is_nothing_to_find():
    assert standings(arm("control", 10), arm("arch", 10), roles=Roles("control", "arch")) == {"arch": Standing.FUTILE}


def test_at_the_last_look_no_arm_stays_open():
    found = standings(arm("control", 14, 6), arm("arch", 18, 2), arm("clip", 20), seeds=20)
    assert found == {"arch": Standing.FUTILE, "clip": Standing.DECIDED}


def test_later_seeds_are_not_looked_at():
    (early, _) = judge_look(
        ROLES, stage("a", arm("control", 5, 15), arm("arch", 20), arm("clip", 1)), RULES, seeds=10, last=20
    )
    assert (early.control, early.rate.n) == (Rate(5, 10), 10)


def test_arms_of_a_study_without_parts_are_all_looked_at():
    assert set(standings(arm("control", 5, 5), arm("one", 10), arm("two", 10), roles=Roles("control"))) == {
        "one",
        "two",
    }


def test_in_words():
    (found,) = judge_look(
        Roles("base", "arch"), stage("a", arm("base", 7, 3), arm("arch", 10)), RULES, seeds=10, last=20
    )
    assert str(found).startswith("arch: 0 of 10 failed, 3 of 10 of base (p = 0.058); ")
    assert str(found).endswith(": open")


@pytest.mark.parametrize(
    ("looks", "candidates"), [([10, 20], 1), ([10, 20], 2), ([10, 20], 3), ([3, 6, 9], 3), ([8, 16, 24], 4)]
)
def test_alpha_of_a_look_keeps_every_intersection(looks, candidates):
    alpha = look_alpha(looks, 0.05, candidates)
    assert alpha <= sequential_alpha(looks, 0.05)
    for no_better in range(1, candidates + 1):
        assert sequential_error_and_power(looks, alpha / no_better, 0.3, 0.0).error <= 0.05 / no_better


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_two_candidates_that_are_no_better_are_found_in_one_study_of_twenty_at_most(rate):
    """Simulated: two looks, Holm, and arms stay stopped. The exact bound is 0.05."""
    rng = np.random.default_rng(0)
    studies, found = 4000, 0
    for _ in range(studies):
        failures = (rng.random((3, 20)) < rate).cumsum(axis=1)
        for n in (10, 20):
            control, *arms = (int(count) for count in failures[:, n - 1])
            if min(holm([fewer_failures_p(Rate(control, n), Rate(count, n)) for count in arms])) <= RULES.alpha:
                found += 1
                break
    assert found / studies <= 0.05
