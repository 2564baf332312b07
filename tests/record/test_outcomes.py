"""Constructed runs: 10 validations 100 steps apart, the constant output's loss is 1, the healthy loss 0.3."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnostab.ptychography import metric_names
from fnostab.ptychography.settings import MonitorConfig
from fnostab.record.outcome_rules import Bound, OutcomeRules, Validation
from fnostab.record.outcomes import EXCLUDED, FAILURES, TRAINING_OUTCOMES, Outcome, ends_early, judge

HEALTHY = 10 * [0.3]
LAST_STEP = 999


NAMES = (metric_names.SPREAD, metric_names.PATCH_VARIATION, metric_names.DETAIL_CORRELATION)


def judged(losses=HEALTHY, spreads=None, variations=None, first=None, constant=1.0, rules=None, details=None):
    n = len(losses)
    spreads = spreads if spreads is not None else n * [0.9]
    variations = variations if variations is not None else n * [0.5]
    details = details if details is not None else n * [0.8]
    measures = [
        {name: value for name, value in zip(NAMES, row, strict=True) if value is not None}
        for row in zip(spreads, variations, details, strict=True)
    ]
    return judge(
        [Validation(100 * i + 99, *row) for i, row in enumerate(zip(losses, measures, strict=True))],
        first_nonfinite_step=first,
        last_step=LAST_STEP,
        baseline=constant,
        rules=rules or MonitorConfig().outcome_rules,
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
    assert judged(variations=[*9 * [1e-5], 0.5]).outcome is Outcome.CONVERGED
    assert judged([*4 * [0.3], *5 * [60.0], 0.3]).outcome is Outcome.CONVERGED


def test_patches_that_look_alike_must_do_so_three_times():
    assert judged(variations=8 * [0.5] + 2 * [9e-5]).outcome is Outcome.CONVERGED
    assert judged(variations=7 * [0.5] + 3 * [1e-4]).outcome is Outcome.CONVERGED
    often = judged(variations=7 * [0.5] + 3 * [9e-5])
    assert (often.outcome, often.failure_step, often.known_good_step) == (Outcome.COLLAPSED, 999, 699)


def test_a_training_whose_patches_are_much_alike_at_first_is_not_ended():
    """The least that was seen of one that recovered is 0.0038; on a measured scan the amplitudes varied by 0.0009."""
    rules = MonitorConfig().outcome_rules
    for variation, ends in ((0.0038, False), (0.0009, False), (1e-5, True), (math.nan, False)):
        seen = [Validation(step, 1.0, {metric_names.PATCH_VARIATION: variation}) for step in (10, 20, 30)]
        assert ends_early(seen, rules) is ends, variation
        assert not ends_early(seen[:2], rules)


@pytest.mark.parametrize(("last", "outcome"), [(0.49, Outcome.STAGNATED), (0.5, Outcome.CONVERGED)])
def test_a_success_shows_details_of_the_object_at_its_end(last, outcome):
    judgement = judged(details=9 * [0.8] + [last])
    assert judgement.outcome is outcome
    if outcome is Outcome.STAGNATED:
        assert (judgement.failure_step, judgement.known_good_step) == (999, 899)


def test_what_never_showed_details_is_known_at_the_last_step():
    judgement = judged(details=10 * [0.2])
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (
        Outcome.STAGNATED,
        LAST_STEP,
        None,
    )
    assert judged(details=9 * [0.2] + [0.7]).outcome is Outcome.CONVERGED


@pytest.mark.parametrize("what", ["spreads", "variations", "details"])
def test_a_measure_that_is_nan_is_no_success(what):
    of_rule = {"spreads": Outcome.COLLAPSED, "variations": Outcome.COLLAPSED, "details": Outcome.STAGNATED}
    assert judged(**{what: 10 * [math.nan]}).outcome is of_rule[what]
    assert judged(**{what: [math.nan, *9 * [0.9]]}).outcome is Outcome.CONVERGED


def test_either_sign_of_a_collapse_is_enough():
    nothing = 10 * [None]
    assert judged(spreads=nothing, variations=10 * [1e-5]).outcome is Outcome.COLLAPSED
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
        ("stagnated_detail", 0.9, {}),
    ],
)
def test_every_threshold_is_a_setting(threshold, value, run):
    rule = Outcome(threshold.split("_")[0])
    assert judged(**run).outcome is Outcome.CONVERGED
    assert judged(**run, rules=MonitorConfig(**{threshold: value}).outcome_rules).outcome is rule


def test_one_validation_is_too_few_to_explode():
    judgement = judged([9.0])
    assert Outcome.EXPLODED not in judgement.rules_held
    assert judgement.not_judged == ("exploded: needs two validations",)


@pytest.mark.parametrize("constant", [None, 1.0])
def test_two_are_too_few_where_the_first_is_the_start_of_the_progress(constant):
    judgement = judged([0.1, 9.0], constant=constant, rules=OutcomeRules())
    assert Outcome.EXPLODED not in judgement.rules_held
    assert "exploded: needs three validations" in judgement.not_judged


def test_what_cannot_be_judged_is_said():
    nothing = 10 * [None]
    judgement = judged(spreads=nothing, variations=nothing, details=nothing, constant=None)
    assert judgement.outcome is Outcome.CONVERGED
    assert [reason.split(":")[0] for reason in judgement.not_judged] == ["collapsed", "stagnated", "stagnated"]
    assert judgement.not_judged[2] == "stagnated: by the loss alone, needs val/detail_correlation"
    assert "val/patch_variation or val/spread" in judgement.not_judged[0]
    assert "learnt nothing" in judgement.not_judged[1]


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


# Rules without thresholds of a task: any sign and scale of a loss

FLAT = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: float(round(x, 3)))
LOSSES = st.lists(st.one_of(FLAT, st.floats(-1e6, 1e6).map(round).map(float)), min_size=2, max_size=8)


def own(losses, *, baseline=None, training=(), **rules):
    """Judged by the trial's own progress; one validation each ten steps."""
    return judge(
        [Validation(10 * i + 9, loss) for i, loss in enumerate(losses)],
        first_nonfinite_step=None,
        last_step=10 * len(losses) - 1,
        baseline=baseline,
        rules=OutcomeRules(**rules),
        training=training,
    )


@settings(max_examples=300)
@given(LOSSES, st.lists(FLAT, max_size=40), st.one_of(st.none(), FLAT), st.sampled_from([-4096.0, -3.0, 7.0, 65536.0]))
def test_a_constant_that_is_added_to_every_loss_changes_no_outcome(losses, training, baseline, added):
    # Multiples of 1/1024 keep their value in the sum: rounding is none of the rules' business
    losses, training = ([round(1024 * x) / 1024 for x in each] for each in (losses, training))
    baseline = None if baseline is None else round(1024 * baseline) / 1024
    moved = own([x + added for x in losses], baseline=None if baseline is None else baseline + added,
                training=[x + added for x in training])  # fmt: skip
    assert moved == own(losses, baseline=baseline, training=training)


@settings(max_examples=200)
@given(LOSSES, st.lists(FLAT, max_size=40), st.one_of(st.none(), FLAT), st.sampled_from([2.0**-40, 0.5, 2.0**30]))
def test_the_unit_of_a_loss_changes_no_outcome(losses, training, baseline, unit):
    scaled = own([x * unit for x in losses], baseline=None if baseline is None else baseline * unit,
                 training=[x * unit for x in training])  # fmt: skip
    assert scaled == own(losses, baseline=baseline, training=training)


@given(LOSSES, st.lists(FLAT, max_size=40), st.one_of(st.none(), FLAT))
def test_a_loss_that_falls_never_explodes(losses, training, baseline):
    falling = sorted(losses, reverse=True)
    assert Outcome.EXPLODED not in own(falling, baseline=baseline, training=training).rules_held


@pytest.mark.parametrize("losses", [[-1.0, -5.0, -20.0], [1e-12, 1e-13, 1e-14], [3.0, 0.0, -3.0], [1e9, 1e8, 1e7]])
def test_healthy_losses_of_any_sign_and_scale_converge(losses):
    assert own(losses, training=list(range(30, 0, -1))).outcome is Outcome.CONVERGED
    assert own(losses, baseline=losses[0]).outcome is Outcome.CONVERGED


@pytest.mark.parametrize("added", [0.0, -10.0, 1000.0])
def test_exploded_is_a_loss_as_far_above_the_start_as_the_best_lay_below(added):
    training = [added + 1.0 - 0.01 * k for k in range(40)]  # hardly varies early on
    risen = [1.0, 0.5, 1.51, 1.51]
    for losses, outcome in ((risen, Outcome.EXPLODED), ([1.0, 0.5, 1.49, 1.49], Outcome.CONVERGED)):
        rising = [*training[:20], *[added + 5.0] * 20]
        assert own([added + x for x in losses], training=rising).outcome is outcome
    assert own([added + x for x in risen], training=training).outcome is Outcome.CONVERGED  # overfits: it still learns


def test_a_loss_that_wavers_within_the_training_losses_range_has_not_exploded():
    wavering = [1.0 + 0.1 * (-1) ** k for k in range(40)]
    assert own([1.0, 0.99, 1.02, 1.03], training=wavering).outcome is Outcome.CONVERGED
    assert own([1.0, 0.99, 9.0, 9.0], training=wavering).outcome is Outcome.EXPLODED


def test_without_training_losses_it_takes_ten_times_the_progress():
    assert own([1.0, 0.99, 1.05, 1.05]).outcome is Outcome.CONVERGED
    assert own([1.0, 0.99, 1.11, 1.11]).outcome is Outcome.EXPLODED


def test_with_a_baseline_a_trial_has_learnt_what_is_better():
    assert own([3.1, 3.0, 3.02], baseline=3.02).outcome is Outcome.CONVERGED
    assert own([3.1, 3.05, 3.02], baseline=3.02).outcome is Outcome.STAGNATED
    assert own([-1.0, -1.5], baseline=-2.0).outcome is Outcome.STAGNATED


def test_a_loss_that_only_wavers_above_the_baseline_has_stagnated():
    wavering = [1.2, 1.205, 1.198, 1.202, 1.209, 1.2095]
    training = [1.2 + 0.001 * (7 * k % 11) for k in range(60)]  # varies by 0.01
    assert own(wavering, baseline=1.0, training=training).rules_held == (Outcome.STAGNATED,)
    risen = own([1.2, 1.15, 1.3, 1.3], baseline=1.0, training=[1.2 + (k >= 20) for k in range(40)])
    assert risen.rules_held == (Outcome.EXPLODED, Outcome.STAGNATED)


def test_failed_is_a_bound_on_the_last_loss():
    bound = {"above": 3.5}
    assert own([9.0, 3.4], failed=bound).outcome is Outcome.CONVERGED
    judgement = own([3.0, 3.6, 3.7], failed=bound)
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (Outcome.STAGNATED, 19, 9)
    assert own([3.0, 3.6], failed={"above": 3.5, "validations": 2}).outcome is Outcome.CONVERGED


def test_a_failed_bound_that_ends_early_does():
    validations = [Validation(0, 3.0), Validation(1, 3.6)]
    for early in (True, False):
        assert ends_early(validations, OutcomeRules(failed=Bound(above=3.5, ends_early=early))) is early


def test_rules_of_a_metric_that_is_higher_the_better_it_is_are_turned():
    rules = OutcomeRules(baseline=0.1, failed=Bound(below=0.5, validations=2, ends_early=True)).turned()
    assert rules == OutcomeRules(baseline=-0.1, failed=Bound(above=-0.5, validations=2, ends_early=True))
    assert OutcomeRules(exploded_vs_best=3.0, stagnated_vs_baseline=0.9).turned() == OutcomeRules()
    turned_twice = rules.turned()
    assert turned_twice.baseline == 0.1
    assert turned_twice.failed.holds(0.4)


@pytest.mark.parametrize("bound", [{}, {"above": 1.0, "below": 2.0}])
def test_a_bound_has_one_side(bound):
    with pytest.raises(ValueError, match="one of above and below"):
        Bound(**bound)


def test_a_rule_of_several_validations_names_the_last_one_before_the_first_of_these():
    rules = OutcomeRules(collapsed={"val/spread": Bound(below=0.1, validations=3)})
    spreads = {10: 1.0, 20: 1.0, 30: 0.0, 40: 0.0, 50: 0.0}
    seen = [Validation(step, 1.0, {"val/spread": spread}) for step, spread in spreads.items()]
    found = judge(seen, first_nonfinite_step=None, last_step=50, baseline=None, rules=rules)
    assert (found.failure_step, found.known_good_step) == (50, 20)
    found = judge(seen[2:], first_nonfinite_step=None, last_step=50, baseline=None, rules=rules)
    assert (found.failure_step, found.known_good_step) == (50, None)
