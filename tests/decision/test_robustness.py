"""How much a verdict would bear."""

import time
import warnings

from decision_helpers import GOLD, INCONCLUSIVE, PIVOT, ROLES, SILVER, arm, stage, verdict_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fnostab.decision import Roles, Rules, Stage, State, assess, decide
from fnostab.decision.criteria import stage_criteria
from fnostab.decision.tally import summarise
from fnostab.record.outcomes import EXCLUDED, FAILURES, Outcome
from fnostab.record.table import TrialRow

ONE = Roles("control", "arch")


def stages(a, b=None):
    return {"a": a} | ({"b": b} if b else {})


# Changed outcomes


def test_one_failure_of_the_arm_more_takes_gold_away():
    """By hand: 1/10 against 2/10 is fewer; one more failure makes it 2/10, as does one success of control's 1/10."""
    a = stage("a", arm("control", 8, 2), arm("arch", 9, 1, loss=0.5))
    b = stage("b", arm("control", 2, 8), arm("arch", 10))
    assert verdict_of(a, b, ONE).name is GOLD
    assert assess(ONE, stages(a, b)).to_flip == 1


def test_a_gap_of_three_takes_three_changes():
    """By hand: 0/10 against 3/10. Two changes leave 2/10 against 3/10, 0/10 against 1/10 or 1/10 against 2/10."""
    a = stage("a", arm("control", 7, 3), arm("arch", 10, loss=0.5))
    b = stage("b", arm("control", 2, 8), arm("arch", 10))
    assert assess(ONE, stages(a, b)).to_flip == 3


def test_more_than_three_is_not_searched():
    a = stage("a", arm("control", 4, 6), arm("arch", 10, loss=0.5))
    b = stage("b", arm("control", 2, 8), arm("arch", 10))
    assert assess(ONE, stages(a, b)).to_flip is None


def test_a_success_in_place_of_the_only_nonfinite_trial_gives_gold():
    a = stage("a", arm("control", 4, 6), arm("arch", 9, 1, loss=0.5, kind="nonfinite"))
    b = stage("b", arm("control", 2, 8), arm("arch", 10))
    assert verdict_of(a, b, ONE).name is INCONCLUSIVE
    assert assess(ONE, stages(a, b)).to_flip == 1


def test_thirty_trials_in_two_stages_are_searched_in_a_second():
    a = stage("a", arm("control", 2, 8), arm("arch", 10, loss=0.5), arm("clip", 9, 1))
    b = stage("b", arm("control", 0, 10), arm("arch", 10), arm("clip", 9, 1))
    assess(ROLES, stages(a, b))  # the numbers of seeds are kept
    start = time.perf_counter()
    assert assess(ROLES, stages(a, b)).to_flip is None
    assert time.perf_counter() - start < 1


# Other thresholds


def spread_of(trials, *spreads, **fields):
    return [
        TrialRow(t.arm, t.seed, t.outcome, t.loss or 0.5, t.failure_step, t.last_step, amplitude_spread=s, **fields)
        for t, s in zip(trials, spreads, strict=True)
    ]


CLIP_CURES = [arm("arch", 6, 4), arm("clip", 10)]


def test_the_verdict_at_other_collapse_thresholds():
    # control's three collapsed trials have a spread of 0.07: at 0.05 they did not collapse
    control = spread_of(arm("control", 7, 3), *[0.9] * 7, *[0.07] * 3)
    others = [spread_of(CLIP_CURES[0], *[0.9] * 6, *[0.01] * 4), spread_of(CLIP_CURES[1], *[0.9] * 10)]
    a = stage("a", control, *others)
    assert verdict_of(a).name is SILVER
    assert assess(ROLES, stages(a)).at_thresholds == {0.05: INCONCLUSIVE, 0.3: SILVER}


def test_a_trial_that_failed_by_another_rule_too_stays_failed():
    held = (Outcome.COLLAPSED, Outcome.STAGNATED)
    control = spread_of(arm("control", 7, 3), *[0.9] * 7, *[0.07] * 3)
    control[7:] = spread_of(arm("control", 7, 3)[7:], *[0.07] * 3, rules_held=held)
    others = [spread_of(CLIP_CURES[0], *[0.9] * 6, *[0.01] * 4), spread_of(CLIP_CURES[1], *[0.9] * 10)]
    assert assess(ROLES, stages(stage("a", control, *others))).at_thresholds == {0.05: SILVER, 0.3: SILVER}


def test_trials_whose_patches_are_all_alike_stay_collapsed_at_any_threshold():
    control = spread_of(arm("control", 7, 3), *[0.9] * 7, *[0.4] * 3)  # 0.4 is no small spread
    others = [spread_of(CLIP_CURES[0], *[0.9] * 6, *[0.01] * 4), spread_of(CLIP_CURES[1], *[0.9] * 10)]
    assert assess(ROLES, stages(stage("a", control, *others))).at_thresholds == {0.05: SILVER, 0.3: SILVER}


def test_a_nonfinite_trial_needs_no_spread_and_any_other_does():
    control = spread_of(arm("control", 7), *[0.9] * 7) + [
        TrialRow("control", seed, Outcome.NONFINITE) for seed in (7, 8, 9)
    ]
    a = stage("a", control, spread_of(arm("clip", 10), *[0.9] * 10))
    assert set(assess(ROLES, stages(a)).at_thresholds) == {0.05, 0.3}
    assert assess(ROLES, stages(stage("a", *CLIP_CURES, arm("control", 5)))).at_thresholds == {}


# More seeds


def wording(*arms, roles=ONE):
    return [str(each) for each in assess(roles, {"a": stage("a", *arms)}).more_seeds]


def test_more_seeds_in_words():
    assert wording(arm("control", 5, 5), arm("arch", 10)) == [
        "arch in Stage A: none, its lower failure rate is significant"
    ]
    assert wording(arm("control", 7, 3), arm("arch", 10)) == [
        "arch in Stage A: 10 more seeds per arm (predictive power 0.8 for fewer failures)"
    ]
    assert wording(arm("control", 8, 2), arm("arch", 8, 2)) == [
        "arch in Stage A: no number of seeds, predictive power levels off at 0.50"
    ]
    assert wording(arm("control", 4, 1), arm("arch", 5)) == ["arch in Stage A: more than 200 seeds per arm"]


def test_two_candidates_take_more_seeds_than_one():
    def extra(roles):
        a = stage("a", arm("control", 7, 3), arm("arch", 10), arm("clip", 7, 3))
        return assess(roles, {"a": a}).more_seeds[0].extra

    assert extra(ROLES) > extra(ONE)


# Any table

losses = st.one_of(st.just(0.0), st.floats(1e-9, 1e9))
outcomes = st.sampled_from([Outcome.CONVERGED, *FAILURES, *EXCLUDED, Outcome.RUNNING])


@st.composite
def tables(draw):
    """Stages with control and any of three arms, up to seven trials each."""
    found = {}
    for name in draw(st.sampled_from(["a", "ab"])):
        trials = []
        for arm_name in ("control", "arch", "clip", "other"):
            kinds = draw(st.lists(outcomes, min_size=1 if arm_name == "control" else 0, max_size=7))
            for seed, outcome in enumerate(kinds):
                converged = outcome is Outcome.CONVERGED
                trials.append(
                    TrialRow(
                        arm_name,
                        seed,
                        outcome,
                        loss=draw(losses) if converged else draw(st.none() | losses),
                        failure_step=draw(st.none() | st.integers(0, 99)),
                        ssim_amp=draw(st.none() | st.floats(-0.1, 1)),
                        amplitude_spread=draw(st.none() | st.floats(0, 2)),
                        rules_held=(outcome,) if outcome in FAILURES else (),
                    )
                )
        found[name] = Stage(name, tuple(trials))
    return found


@settings(max_examples=60)
@given(tables(), st.booleans(), st.sampled_from([ROLES, ONE, Roles("control")]), st.booleans())
def test_every_table_has_a_verdict_without_a_warning(table, higher_is_better, roles, require_support):
    rules = Rules(higher_is_better=higher_is_better)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = decide(roles, table["a"], table.get("b"), rules=rules, require_support=require_support)
        robustness = assess(roles, table, rules)
    assert verdict.reason
    assert verdict.next_step
    assert (verdict.supported is None) == (verdict.name is INCONCLUSIVE)
    for c in verdict.criteria:
        assert c.p is None or 0 <= c.p <= 1
        assert not (c.supported and c.state is not State.MET)
    if require_support and verdict.name is not INCONCLUSIVE:
        assert verdict.supported
    assert all(name in (GOLD, SILVER, PIVOT, INCONCLUSIVE) for name in robustness.at_thresholds.values())


@settings(max_examples=60)
@given(tables())
def test_one_more_failure_of_the_arm_never_helps_it(table):
    def state(extra):
        trials = Stage("a", table["a"].trials + extra)
        arms = {name: summarise(trials, name, "control") for name in trials.arms}
        found = {(c.arm, c.name): c.state for c in stage_criteria(trials, ONE, Rules(), arms)}
        return found.get(("arch", "fewer_failures"))

    before, after = state(()), state((TrialRow("arch", 100, Outcome.COLLAPSED, failure_step=0),))
    if before is State.NOT_MET:
        assert after is not State.MET
