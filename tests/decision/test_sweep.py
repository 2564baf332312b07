"""From which value of a setting on training fails."""

from decision_helpers import arm, stage
from rich.console import Console

from fnostab.decision import Stage
from fnostab.decision.commands import Source
from fnostab.decision.sweep import compare_along, values_along
from fnostab.record.table_study import TableStudy
from fnostab.report.judging import make_case
from fnostab.report.remarks import left_out
from fnostab.report.sweep import render_along
from fnostab.stats.proportions import wilson

BLOCKS = {"depth_8": 8, "depth_4": 4, "depth_6": 6}


def compared(*arms):
    return compare_along(stage("a", *arms), "depth", BLOCKS, "depth_4")


def test_the_lowest_value_that_fails_with_its_interval():
    found = compared(arm("depth_4", 10), arm("depth_6", 7, 3), arm("depth_8", 1, 9))
    assert [(place.value, place.summary.n_failed) for place in found.places] == [(4, 0), (6, 3), (8, 9)]
    assert found.lowest.value == 6
    low, high = wilson(3, 10)
    assert found.finding == (
        f"training begins to fail at depth 6: 3/10 failed (95 % interval {low:.0%} to {high:.0%}), "
        "the lowest value that fails"
    )


def test_a_value_that_did_not_fit_is_none_that_fails():
    found = compared(arm("depth_4", 3), arm("depth_6", 3), arm("depth_8", oom=3))
    assert "3 oom (seeds 0, 1, 2)" in left_out(found.places[-1].summary)
    assert found.lowest is None
    assert found.finding == "no trial failed at depth 4, 6"


def test_nothing_fitted_or_was_run():
    found = compared(arm("depth_4", oom=2))
    assert [place.value for place in found.places] == [4]
    assert found.finding == "no trial has a training outcome at any depth"


def test_only_arms_that_differ_in_one_number_are_along_it():
    arms = {"a": {"n": 1, "x": "y"}, "b": {"n": 2, "x": "y"}, "c": {"n": 3.5, "x": "y"}}
    assert values_along(arms) == ("n", {"a": 1, "b": 2, "c": 3.5})
    assert values_along(arms | {"d": {"n": 4, "x": "z"}}) is None
    assert values_along(arms | {"d": {"n": True, "x": "y"}}) is None
    assert values_along({"a": {"n": 1}, "b": {"n": 2}}) is None  # a control and an arm


def test_failures_that_only_get_fewer_with_the_value_have_no_beginning():
    study = TableStudy(control="none", arms={"none": {"warmup": 0}, "some": {"warmup": 100}, "much": {"warmup": 1000}})
    rows = Stage("a", (*arm("none", 0, 5), *arm("some", 5), *arm("much", 5)))
    case = make_case({"a": rows}, {"a": study}, source=Source())
    assert case.along is None
    assert "begins to fail" not in case.verdict.reason


def test_the_page_of_a_setting_has_the_answer_for_each_arm():
    study = TableStudy(control="base", arms={"base": {"lr": 0.1}, "low": {"lr": 0.01}, "least": {"lr": 0.001}})
    rows = Stage("a", (*arm("base", 1, 7), *arm("low", 8), *arm("least", 8)))
    case = make_case({"a": rows}, {"a": study}, source=Source())
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_along(case.along, case))
    assert "low helps: 0 of 8 failed, 7 of 8 of base" in capture.get()
    assert "training begins to fail at lr 0.1" in capture.get()
