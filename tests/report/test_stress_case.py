"""A stress study as a case: the level of its tests, its next step, and how it is shown."""

import pytest
from rich.console import Console

from fnostab.decision import Stage, Stress
from fnostab.decision.commands import Source
from fnostab.decision.stress import StressedArm, StressPoint
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.record.table_study import TableStudy
from fnostab.report.judging import make_case
from fnostab.report.stress import render_stress

FAMILIES = {name: {f"{name}_{v:g}": v for v in (0.1, 0.2, 0.4)} for name in ("control", "clipped")}
FAILED = {"control": (0, 3, 6), "clipped": (0, 0, 1)}  # all six seeds differ for clipped: p = 1/64


def case_of(*, look=1, last=Outcome.CONVERGED, failures=FAILED, lost=()):
    rows = [
        TrialRow(arm, seed, Outcome.COLLAPSED if seed < failed else Outcome.CONVERGED, 0.1 + seed / 100)
        for name, counts in failures.items()
        for arm, failed in zip(FAMILIES[name], counts, strict=True)
        for seed in range(6)
    ]
    rows[-1] = TrialRow("clipped_0.4", 5, last)
    rows = [TrialRow(row.arm, 5, Outcome.KILLED) if row.seed == 5 and row.arm in lost else row for row in rows]
    study = TableStudy(control="control_0.1", knob="lr", stressed=FAMILIES, look=look)
    return make_case({"a": Stage("a", tuple(rows))}, {"a": study}, source=Source(again="again"))


@pytest.mark.parametrize(
    ("look", "said"),
    [(1, "clipped tolerates more: beyond 0.4 (95 %: after 0.2) (p = 0.016)"), (2, "no arm tolerates more than that")],
)
def test_a_later_look_is_tested_at_its_own_level_and_says_so(look, said):
    case = case_of(look=look)
    assert said in case.stress.finding == case.verdict.reason
    shown = " ".join(repr(case).split())
    assert "control 0/6 3/6 6/6" in shown
    assert said in shown
    assert ("This is look 2 at this study, so it tests at 0.0125" in shown) is (look == 2)


def test_what_is_odd_about_its_trials_is_said_as_of_any_study():
    assert "clipped_0.1 gave the same numbers as control_0.1 at every seed" in " ".join(repr(case_of()).split())


def test_what_still_runs_is_waited_for_before_the_next_study():
    assert case_of().verdict.next.text.startswith("run the arm that tolerates most")
    waiting = case_of(last=Outcome.RUNNING)
    assert waiting.verdict.next.text == "wait, 1 trial still runs"
    assert " ".join(repr(waiting).split()).endswith("next: wait, 1 trial still runs again")  # and the command


@pytest.mark.parametrize("falling", [False, True])
def test_columns_go_from_easy_to_hard_although_the_first_arm_lacks_a_value(falling):
    families = {arm: sorted(values, reverse=falling) for arm, values in (("control", [1, 4]), ("clipped", [1, 2, 4]))}
    points = {arm: [StressPoint(v, 0, 5, None, {}) for v in values] for arm, values in families.items()}
    arms = [StressedArm(arm, of, None, p) for (arm, of), p in zip(points.items(), (None, 1.0), strict=True)]
    console = Console(width=100)
    with console.capture() as shown:
        console.print(render_stress(Stress("knob", arms, 0.05)))
    columns = ["4", "2", "1"] if falling else ["1", "2", "4"]
    assert f"arm {' '.join(columns)} p" in " ".join(shown.get().split())


@pytest.mark.parametrize(
    ("control", "clipped", "last", "said"),
    [
        ((0, 0, 0), (0, 0, 1), Outcome.CONVERGED, "try harder values of lr: no arm fails in half of its trials"),
        ((6, 6, 6), (6, 6, 6), Outcome.COLLAPSED, "try easier values of lr: every trial failed"),
        (
            (0, 3, 6),
            (0, 2, 6),
            Outcome.COLLAPSED,
            "run more seeds or another arm: none is shown to tolerate more than control",
        ),
    ],
)
def test_no_arm_is_named_as_the_most_tolerant_where_none_is_shown_to_be(control, clipped, last, said):
    case = case_of(failures={"control": control, "clipped": clipped}, last=last)
    assert case.verdict.next.text == said


def test_every_trial_without_an_outcome_is_run_again_since_the_test_counts_it():
    lost = ["control_0.2", "clipped_0.1", "clipped_0.4"]
    case = case_of(lost=lost)
    assert case.verdict.next.text == "rerun the 3 trials of control_0.2, clipped_0.1 and clipped_0.4 without an outcome"
    assert (case.verdict.next.arms, case.command) == (tuple(lost), "again")
