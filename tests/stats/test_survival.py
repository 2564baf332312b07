import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnostab.errors import DecisionError
from fnostab.stats.survival import kaplan_meier

# Weeks of remission of leukaemia under 6-MP: Freireich et al., Blood 21 (1963) 699
DRUG = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
DRUG_RELAPSED = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]

pytestmark = pytest.mark.filterwarnings("error")


def test_kaplan_meier_of_the_leukaemia_trial():
    curve = kaplan_meier(DRUG, DRUG_RELAPSED)
    published = {  # survival, log-log band
        6: (0.8571, 0.6197, 0.9516),
        7: (0.8067, 0.5631, 0.9228),
        10: (0.7529, 0.5032, 0.8894),
        13: (0.6902, 0.4316, 0.8491),
        16: (0.6275, 0.3675, 0.8049),
        22: (0.5378, 0.2678, 0.7468),
        23: (0.4482, 0.1881, 0.6801),
    }
    for step, expected in published.items():
        i = np.searchsorted(curve.steps, step)
        assert (curve.survival[i], curve.low[i], curve.high[i]) == pytest.approx(expected, abs=1e-4)
    assert curve.at_risk[:4].tolist() == [21, 21, 17, 16]
    assert curve.failures[:4].tolist() == [0, 3, 1, 0]


def test_a_trial_censored_at_a_failure_step_was_still_at_risk_there():
    curve = kaplan_meier([5, 5], [True, False])
    assert curve.steps.tolist() == [0, 5]
    assert curve.survival.tolist() == [1.0, 0.5]


def test_none_failed():
    curve = kaplan_meier([10, 10, 20], [False] * 3)
    assert curve.survival.tolist() == curve.low.tolist() == curve.high.tolist() == [1.0, 1.0, 1.0]


def test_all_failed_at_once_even_at_step_zero():
    curve = kaplan_meier([0, 0], [True, True])
    assert curve.steps.tolist() == [0, 0]
    assert curve.survival.tolist() == [1.0, 0.0]
    assert (curve.low[-1], curve.high[-1]) == (0.0, 1.0)


def test_one_trial_and_none():
    assert kaplan_meier([7], [True]).survival.tolist() == [1.0, 0.0]
    assert kaplan_meier([7], [False]).survival.tolist() == [1.0, 1.0]
    assert kaplan_meier([], []) is None


def test_after_the_last_failure_the_band_keeps_its_upper_end():
    curve = kaplan_meier([3, 5], [True, True])
    assert curve.survival[-1] == curve.low[-1] == 0.0
    assert curve.high[-1] == curve.high[-2] < 1


trials = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12)


@given(trials)
def test_survival_never_rises_and_stays_in_its_band(observed):
    curve = kaplan_meier(*zip(*observed, strict=True))
    assert (np.diff(curve.survival) <= 0).all()
    assert (curve.low <= curve.survival + 1e-12).all()
    assert (curve.survival <= curve.high + 1e-12).all()
    assert np.isfinite([curve.low, curve.high]).all()


@given(trials)
def test_without_censoring_survival_is_the_share_still_running(observed):
    steps = np.array([step for step, _ in observed])
    curve = kaplan_meier(steps, [True] * steps.size)
    assert curve.survival[1:] == pytest.approx([(steps > step).mean() for step in curve.steps[1:]])


def test_bad_steps_are_named():
    with pytest.raises(DecisionError, match=r"step -1\.0"):
        kaplan_meier([-1, 3], [True, True])
    with pytest.raises(DecisionError, match="step nan"):
        kaplan_meier([math.nan], [True])
    with pytest.raises(DecisionError, match=r"\(2,\) and \(1,\)"):
        kaplan_meier([1, 3], [True])
