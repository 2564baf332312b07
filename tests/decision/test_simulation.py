"""Rates at which the decision is wrong, and finds what there is: a quick version of benchmarks/decision.py.

At 5 % and 300 studies chance alone goes up to 8.6 % in one case of a thousand; the program itself, with 2000 studies
a line, is printed in docs/statistics.md.
"""

import pytest

from benchmarks.decision import shares, shares_over_looks


@pytest.mark.parametrize(("rate", "n", "candidates"), [(0.1, 10, 4), (0.3, 20, 2), (0.5, 5, 2)])
def test_where_nothing_differs_helps_and_harms_are_rare(rate, n, candidates):
    found = shares(300, control_rate=rate, arm_rate=rate, n=n, candidates=candidates, seed=1)
    assert found["helps"] <= 0.086
    assert found["harms"] <= 0.086


@pytest.mark.slow
def test_looks_that_nobody_planned_do_not_add_up():
    found = shares_over_looks(300, 0.3, seed=1)
    assert max(found.values()) <= 0.086


def test_half_against_none_at_equal_loss_is_found_with_twenty_seeds():
    assert shares(200, control_rate=0.5, arm_rate=0.0, n=20, candidates=2, seed=1)["helps"] >= 0.85
