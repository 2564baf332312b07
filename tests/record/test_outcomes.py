"""Constructed runs: 10 validations 100 steps apart, the constant output's loss is 1, the healthy loss 0.3."""

import math

import pytest

from fnostab.ptychography.settings import MonitorConfig
from fnostab.record.outcomes import EXCLUDED, FAILURES, TRAINING_OUTCOMES, Outcome, Validation, judge

HEALTHY = 10 * [0.3]
LAST_STEP = 999


def judged(losses=HEALTHY, spreads=None, variations=None, first=None, constant=1.0, rules=None):
    n = len(losses)
    spreads = spreads if spreads is not None else n * [0.9]
    variations = variations if variations is not None else n * [0.5]
    rows = zip(losses, spreads, variations, strict=True)
    validations = [Validation(100 * i + 99, *row) for i, row in enumerate(rows)]
    return judge(
        validations,
        first_nonfinite_step=first,
        last_step=LAST_STEP,
        constant_loss=constant,
        rules=rules or MonitorConfig(),
    )


def test_a_healthy_run_converges():
    judgement = judged()
    assert judgement.outcome is Outcome.CONVERGED
    assert (judgement.failure_step, judgement.known_good_step) == (None, None)
    assert (judgement.rules_held, judgement.not_judged) == ((), ())


@pytest.mark.parametrize(("step", "known_good"), [(0, None), (1, 0), (437, 436)])
def test_a_nonfinite_step_is_exact(step, known_good):
    judgement = judged(first=step)
    assert judgement.outcome is Outcome.NONFINITE
    assert (judgement.failure_step, judgement.known_good_step) == (step, known_good)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_nonfinite_validation_lies_between_two_validations(value):
    judgement = judged([0.3, 0.3, value, *7 * [0.3]])
    assert judgement.outcome is Outcome.NONFINITE
    assert (judgement.failure_step, judgement.known_good_step) == (299, 199)
    assert judged([value, 0.3]).known_good_step is None


def test_of_two_nonfinite_values_the_earlier_counts():
    losses = [0.3, 0.3, math.nan, 0.3]
    assert judged(losses, first=150).failure_step == 150
    assert judged(losses, first=299).known_good_step == 298
    later = judged(losses, first=350)
    assert (later.failure_step, later.known_good_step) == (299, 199)


@pytest.mark.parametrize(("spread", "outcome"), [(0.099, Outcome.COLLAPSED), (0.1, Outcome.CONVERGED)])
def test_collapsed_is_a_spread_below_a_tenth_of_the_truths(spread, outcome):
    judgement = judged(spreads=9 * [0.9] + [spread])
    assert judgement.outcome is outcome


def test_the_collapse_began_with_the_final_unbroken_stretch():
    judgement = judged(spreads=[0.01, 0.01, *4 * [0.9], *4 * [0.01]])
    assert (judgement.failure_step, judgement.known_good_step) == (699, 599)
    from_the_start = judged(spreads=10 * [0.01])
    assert (from_the_start.failure_step, from_the_start.known_good_step) == (99, None)


def test_a_run_that_recovered_did_not_fail():
    assert judged(spreads=[*9 * [0.01], 0.9]).outcome is Outcome.CONVERGED
    assert judged(variations=[*9 * [0.001], 0.5]).outcome is Outcome.CONVERGED
    assert judged([*4 * [0.3], *5 * [60.0], 0.3]).outcome is Outcome.CONVERGED


def test_patches_that_look_alike_must_do_so_twice():
    assert judged(variations=9 * [0.5] + [0.0049]).outcome is Outcome.CONVERGED
    assert judged(variations=8 * [0.5] + 2 * [0.005]).outcome is Outcome.CONVERGED
    twice = judged(variations=8 * [0.5] + 2 * [0.0049])
    assert (twice.outcome, twice.failure_step, twice.known_good_step) == (Outcome.COLLAPSED, 999, 899)


def test_either_sign_of_a_collapse_is_enough():
    nothing = 10 * [None]
    assert judged(spreads=nothing, variations=10 * [0.001]).outcome is Outcome.COLLAPSED
    assert judged(variations=nothing, spreads=10 * [0.01]).outcome is Outcome.COLLAPSED


@pytest.mark.parametrize(
    ("last_two", "outcome"),
    [
        ([2.01, 2.01], Outcome.EXPLODED),  # above twice the constant output's
        ([2.01, 1.99], Outcome.CONVERGED),
        ([1.99, 2.01], Outcome.CONVERGED),  # the last two must both be
        ([2.0, 2.0], Outcome.CONVERGED),
    ],
)
def test_exploded_is_twice_the_constant_outputs_loss(last_two, outcome):
    assert judged([*8 * [0.9], *last_two]).outcome is outcome


@pytest.mark.parametrize(
    ("last_two", "outcome"),
    [([0.91, 0.91], Outcome.EXPLODED), ([0.89, 0.91], Outcome.CONVERGED), ([0.91, 0.89], Outcome.CONVERGED)],
)
def test_exploded_is_three_times_the_best_of_its_own(last_two, outcome):
    assert judged([*8 * [0.3], *last_two]).outcome is outcome


def test_the_best_is_that_of_the_time():
    """A loss that was high before it was low is how every training begins."""
    judgement = judged([0.9, 0.9, 0.9, 0.9, 0.2, 0.2, 0.2, 0.7, 0.7, 0.7])
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (Outcome.EXPLODED, 799, 699)
    assert judged([0.9, 0.9, 0.2, 0.2]).outcome is Outcome.CONVERGED


def test_the_published_layerscale_run_exploded():
    """Learns until epoch 4, ends as constant as the published table says: 0.0237, then 0.1790."""
    losses = [0.06, 0.04, 0.03, 0.0237, *6 * [0.1790]]
    judgement = judged(losses, spreads=[*4 * [0.8], *6 * [0.01]], constant=0.179)
    assert judgement.outcome is Outcome.COLLAPSED
    assert judgement.rules_held == (Outcome.COLLAPSED, Outcome.EXPLODED)
    assert (judgement.failure_step, judgement.known_good_step) == (499, 399)


@pytest.mark.parametrize(("best", "outcome"), [(0.951, Outcome.STAGNATED), (0.949, Outcome.CONVERGED)])
def test_stagnated_is_a_best_loss_no_better_than_the_constants(best, outcome):
    judgement = judged([*5 * [0.99], best, *4 * [0.99]])
    assert judgement.outcome is outcome
    if outcome is Outcome.STAGNATED:
        assert (judgement.failure_step, judgement.known_good_step) == (LAST_STEP, None)


def test_a_run_without_a_finite_validation_has_not_learnt():
    assert judged(2 * [math.nan]).rules_held == (Outcome.NONFINITE, Outcome.EXPLODED, Outcome.STAGNATED)


def test_precedence_and_everything_that_held():
    everything = {"losses": [*8 * [1.0], 9.0, 9.0], "spreads": 10 * [0.01]}
    assert judged(**everything, first=5).rules_held == FAILURES
    assert judged(**everything, first=5).outcome is Outcome.NONFINITE
    assert judged(**everything).outcome is Outcome.COLLAPSED
    flat = {**everything, "spreads": 10 * [0.9]}
    assert judged(**flat).rules_held == (Outcome.EXPLODED, Outcome.STAGNATED)
    assert judged(**flat).failure_step == 899


@pytest.mark.parametrize(
    ("threshold", "value", "run"),
    [
        ("collapsed_spread", 0.95, {}),
        ("collapsed_patch_variation", 0.6, {}),
        ("exploded_vs_constant", 0.2, {}),
        ("exploded_vs_best", 1.05, {"losses": [0.3, 0.32, 0.32]}),
        ("stagnated_vs_constant", 0.2, {}),
    ],
)
def test_every_threshold_is_a_setting(threshold, value, run):
    rule = Outcome(threshold.split("_")[0])
    assert judged(**run).outcome is Outcome.CONVERGED
    assert judged(**run, rules=MonitorConfig(**{threshold: value})).outcome is rule


def test_one_validation_is_too_few_to_explode():
    judgement = judged([9.0])
    assert Outcome.EXPLODED not in judgement.rules_held
    assert judgement.not_judged == ("exploded: needs two validations",)


def test_what_cannot_be_judged_is_said():
    nothing = 10 * [None]
    judgement = judged(spreads=nothing, variations=nothing, constant=None)
    assert judgement.outcome is Outcome.CONVERGED
    assert [reason.split(":")[0] for reason in judgement.not_judged] == ["collapsed", "stagnated"]
    assert "truth" in judgement.not_judged[0]
    assert "constant" in judgement.not_judged[1]


def test_without_the_constant_outputs_loss_a_run_is_held_against_its_own_best():
    assert judged([*8 * [0.3], 0.91, 0.91], constant=None).outcome is Outcome.EXPLODED
    assert judged(10 * [9.0], constant=None).outcome is Outcome.CONVERGED


def test_no_validation_at_all():
    judgement = judged([], first=None)
    assert judgement.outcome is Outcome.CONVERGED
    assert [reason.split(":")[0] for reason in judgement.not_judged] == ["collapsed", "exploded", "stagnated"]
    assert judged([], first=3).outcome is Outcome.NONFINITE


def test_every_outcome_is_of_one_kind():
    assert {*TRAINING_OUTCOMES, *EXCLUDED, Outcome.RUNNING} == set(Outcome)
    assert set(FAILURES) < set(TRAINING_OUTCOMES)
    assert not set(TRAINING_OUTCOMES) & set(EXCLUDED)
