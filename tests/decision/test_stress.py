"""Answers of a stress study."""

from dataclasses import replace

import pytest

from fnostab.decision import Stage, compare_stress
from fnostab.decision.stress import margin_text
from fnostab.record.outcomes import Outcome
from fnostab.record.table import Table, TrialRow
from fnostab.record.table_study import TableStudy
from fnostab.report.decide_table import decide

FAMILIES = {name: {f"{name}_{v:g}": v for v in (0.01, 0.02, 0.04)} for name in ("control", "cure", "worse")}


def stage(**failed):
    """Six seeds at each value; ``failed`` says how many of them failed at each."""
    rows = []
    for name, counts in failed.items():
        for arm, n in zip(FAMILIES[name], counts, strict=True):
            rows += [TrialRow(arm, s, Outcome.COLLAPSED if s < n else Outcome.CONVERGED, 0.1) for s in range(6)]
    return Stage("a", tuple(rows))


def test_the_arm_that_tolerates_more_is_named():
    stress = compare_stress(stage(control=(0, 3, 6), cure=(0, 0, 1)), FAMILIES, "training.learning_rate", "control")
    control, cure = stress.arms
    assert control.p is None
    assert control.margin.estimate == pytest.approx(0.02)
    assert cure.p == pytest.approx(1 / 64)  # all six seeds differ, for the cure
    assert margin_text(cure) == "beyond 0.04 (95 %: after 0.02)"
    assert stress.finding == (
        "half of control's trials fail at training.learning_rate 0.02 (95 %: after 0.01 and before 0.04); "
        "cure tolerates more: beyond 0.04 (95 %: after 0.02) (p = 0.016)"
    )


@pytest.mark.parametrize(
    ("failed", "headline", "status"),
    [
        ({"control": (3, 6, 6), "cure": (0, 0, 1)}, "cure tolerates more", 0),
        ({"control": (6, 0, 0), "cure": (6, 0, 0)}, "no arm is shown to tolerate more", 30),  # although it helps there
    ],
)
def test_headline_and_exit_status_say_what_the_finding_says(failed, headline, status):
    families = {name: FAMILIES[name] for name in failed}
    study = TableStudy(control="control_0.01", knob="lr", stressed=families)
    verdict = decide(Table({"a": stage(**failed).trials}, study)).verdict
    assert (verdict.headline, verdict.exit_code) == (headline, status)
    assert ("cure tolerates more" in verdict.reason) == (status == 0)


def test_an_arm_that_was_not_judged_as_control_was_is_not_said_to_tolerate_more():
    rows = stage(control=(0, 3, 6), cure=(0, 0, 1)).trials
    unlike = [replace(t, not_judged=("collapsed: needs spread",)) if t.arm == "cure_0.02" else t for t in rows]
    stress = compare_stress(Stage("a", tuple(unlike)), FAMILIES, "lr", "control")
    assert [arm.p for arm in stress.arms] == [None, 1]
    assert "tolerates more" in compare_stress(Stage("a", rows), FAMILIES, "lr", "control").finding


def test_p_values_are_corrected_for_the_number_of_arms():
    found = compare_stress(stage(control=(0, 3, 6), cure=(0, 0, 1), worse=(6, 6, 6)), FAMILIES, "lr", "control")
    by_name = {arm.name: arm for arm in found.arms}
    assert by_name["cure"].p == pytest.approx(2 / 64)
    assert by_name["worse"].p == 1
    assert "worse tolerates" not in found.finding
    alone = compare_stress(stage(control=(0, 3, 6), worse=(6, 6, 6)), FAMILIES, "lr", "control")
    assert "no arm tolerates more than that" in alone.finding


def test_arms_that_were_not_run_are_left_out_and_trials_without_an_outcome_do_not_count():
    rows = [TrialRow("control_0.01", s, Outcome.OOM) for s in range(3)]
    stress = compare_stress(Stage("a", tuple(rows)), FAMILIES, "lr", "control")
    (control,) = stress.arms
    assert control.margin is None
    assert stress.finding == "where half of control's trials fail is unknown: no trial has a training outcome"
    assert control.points[0].outcomes == {"oom": 3}


@pytest.mark.parametrize("how", ["running", "infra_error", "missing"])
def test_an_arm_whose_trials_without_an_outcome_may_have_failed_is_not_said_to_tolerate_more(how):
    trials = stage(control=(0, 3, 6), cure=(0, 0, 1)).trials
    lacking = [t for t in trials if t.arm == "cure_0.01"]
    known = tuple(t for t in trials if t not in lacking)
    missing = {"cure_0.01": tuple(range(6))} if how == "missing" else {}
    open_ones = () if missing else tuple(replace(t, outcome=Outcome(how)) for t in lacking)
    families = {name: FAMILIES[name] for name in ("control", "cure")}
    stress = compare_stress(Stage("a", known + open_ones, missing), families, "lr", "control")
    assert stress.arms[1].p == pytest.approx(1 / 4)  # had they failed, only two seeds would differ
    assert not stress.better
