"""Rates at which the decision is wrong, and finds what there is: a quick version of benchmarks/decision.py.

At 5 % and 300 studies chance alone goes up to 8.6 % in one case of a thousand; the program itself, with 2000 studies
a line, is printed in docs/statistics.md.
"""

import numpy as np
import pytest
import scipy

from benchmarks.decision import shares, shares_over_looks
from fnostab.stats.proportions import newcombe_difference
from fnostab.stats.rate import Rate


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


@pytest.mark.parametrize(
    ("control_n", "arm_n", "largest"),
    [(3, 3, 0.052), (5, 5, 0.052), (7, 7, 0.052), (17, 17, 0.052), (3, 48, 0.0735), (4, 6, 0.0735)],
)
def test_a_reduction_of_20_points_is_rarely_ruled_out_by_mistake(control_n, arm_n, largest):
    """Exact sums over all counts; `Answer` rules it out so, see `rules_out_help`."""
    rates = np.linspace(0.2, 1, 401)
    ruled_out = [
        [newcombe_difference(Rate(k, control_n), Rate(j, arm_n)).high < 0.2 <= k / control_n for j in range(arm_n + 1)]
        for k in range(control_n + 1)
    ]
    control = scipy.stats.binom.pmf(np.arange(control_n + 1), control_n, rates[:, None])
    arm = scipy.stats.binom.pmf(np.arange(arm_n + 1), arm_n, np.clip(rates[:, None] - 0.2, 0, 1))
    assert np.einsum("rk,kj,rj->r", control, np.array(ruled_out, dtype=float), arm).max() <= largest
