"""Every sentence that `fnostab decide` says of an arm, beside the trials that it says it of; and its other lines."""

import ast
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from decision_helpers import arm, criterion, stage, verdict_of

import fnostab.decision
from fnostab.decision import Roles, Rules, Stage, compare_stress
from fnostab.decision.chances import MoreSeeds
from fnostab.decision.commands import Place, Source, as_run, command_of
from fnostab.decision.oversights import (
    all_failed_alike,
    arms_without_metric,
    ended_early_line,
    learning_not_judged,
    margin_as_share,
    rules_judged_in_part,
)
from fnostab.decision.sweep import compare_along
from fnostab.record.missing_metric import metric_not_recorded
from fnostab.record.outcome_rules import Bound, OutcomeRules
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.record.table_study import TableStudy
from fnostab.record.trial import Measure, Metric
from fnostab.report.case import Case
from fnostab.report.judging import make_case
from fnostab.report.remarks import best_arms, conditions, look_text, remarks, scope
from fnostab.report.stored_studies import judged_line
from fnostab.report.tables import criteria_table, evidence_text
from fnostab.report.verdict import to_markdown

QUALITY = {"sharpness": Measure(higher_is_better=True, margin=0.02)}
CONTROL = arm("base", 3, 7)


def measured(trials, value):
    return [replace(t, measures={"sharpness": value}) for t in trials]


def unmeasured(trials):
    return [replace(t, loss=None) for t in trials]


SENTENCES = [
    # Fails less often
    (
        [CONTROL, arm("norm", 9, 1)],
        {},
        "norm helps: 1 of 10 failed, 7 of 10 of base (p = 0.004); it fails 60 points less often (95 %: 17 to 81 less).",
    ),
    (
        [arm("base", 6, 4), arm("norm", 10)],
        {},
        "norm helps: 0 of 10 failed, 4 of 10 of base (p = 0.021); it fails 40 points less often (95 %: 4 to 69 less); "
        "fragile: one other outcome would change this.",
    ),
    (
        [arm("base", 25, 75), arm("norm", 43, 57)],
        {},
        "norm helps: 57 of 100 failed, 75 of 100 of base (p = 0.004); "
        "it fails 18 points less often (95 %: 5 to 30 less), "
        "fewer than the 20 that the study asks for.",
    ),
    (  # 19.7 points are shown as 20, which are not fewer than 20
        [arm("base", 265, 65), arm("norm", 330)],
        {},
        "norm helps: 0 of 330 failed, 65 of 330 of base (p < 0.001); it fails 20 points less often (95 %: 16 to 24 "
        "less).",
    ),
    (
        [arm("base", 8, 12), arm("norm", 20, loss=1.5)],
        {},
        "norm helps, at a cost: 0 of 20 failed, 12 of 20 of base (p < 0.001); "
        "it fails 60 points less often (95 %: 33 to 78 "
        "less); its loss was 50 % higher (p < 0.001).",
    ),
    (
        [arm("base", 8, 12, spread=0.25), arm("norm", 20, loss=1.15, spread=0.08)],
        {},
        "norm helps: 0 of 20 failed, 12 of 20 of base (p < 0.001); "
        "it fails 60 points less often (95 %: 33 to 78 less); "
        "its loss was 15 % higher, which could be luck.",
    ),
    (
        [measured(arm("base", 8, 12), 0.8), measured(arm("norm", 20), 0.7)],
        {"measures": QUALITY},
        "norm helps, at a cost: 0 of 20 failed, 12 of 20 of base (p < 0.001); "
        "it fails 60 points less often (95 %: 33 to 78 "
        "less); its sharpness was 0.1 lower (p < 0.001).",
    ),
    (
        [arm("base", 8, 12), arm("norm", 20)],
        {"measures": QUALITY},
        "norm helps: 0 of 20 failed, 12 of 20 of base (p < 0.001); "
        "it fails 60 points less often (95 %: 33 to 78 less); "
        "sharpness not compared, too few values were recorded.",
    ),
    (
        [arm("base", 0, 20), arm("norm", 20)],
        {},
        "norm helps: 0 of 20 failed, 20 of 20 of base (p < 0.001); "
        "it fails 100 points less often (95 %: 77 to 100 less); "
        "loss not compared, all 20 of base failed.",
    ),
    (
        [arm("base", 0, 20), arm("norm", 20)],
        {"measures": QUALITY | {"contrast": Measure()}},
        "norm helps: 0 of 20 failed, 20 of 20 of base (p < 0.001); "
        "it fails 100 points less often (95 %: 77 to 100 less); "
        "loss, sharpness and contrast not compared, all 20 of base failed.",
    ),
    (
        [arm("base", 2, 18), [replace(t, last_step=49) for t in arm("norm", 20)]],
        {"free_lengths": True},
        "norm helps: 0 of 20 failed, 18 of 20 of base (p < 0.001); "
        "it fails 90 points less often (95 %: 64 to 97 less); "
        "loss not compared, only 2 of 20 of base did not fail; it ran 49 steps against 99.",
    ),
    # Fails more often
    (
        [arm("base", 100), arm("norm", 1, 2)],
        {},
        "norm harms, it fails more often: 2 of 3 failed, 0 of 100 of base (p < 0.001); it fails 67 points more often "
        "(95 %: 21 to 94 more).",
    ),
    # No reduction that is worth having
    (
        [arm("base", 60, 40), arm("norm", 60, 40)],
        {},
        "norm does not help: 40 of 100 failed, 40 of 100 of base; a reduction of 20 points or more is ruled out.",
    ),
    (
        [arm("base", 60, 40), arm("norm", 60, 40, loss=0.5)],
        {},
        "norm does not help: 40 of 100 failed, 40 of 100 of base; a reduction of 20 points or more is ruled out; "
        "its loss was 50 % lower (p < 0.001).",
    ),
    # Nothing failed
    (
        [arm("base", 10), arm("norm", 10, loss=0.9)],
        {},
        "norm helps: nothing failed; on the loss alone: 10 % lower (p < 0.001).",
    ),
    (
        [measured(arm("base", 10), 0.80), measured(arm("norm", 10, loss=0.9), 0.75)],
        {"measures": QUALITY},
        "norm: undecided, nothing failed; lower loss (p < 0.001); its sharpness was 0.05 lower (p < 0.001).",
    ),
    (
        [measured(arm("base", 10), 0.80), measured(arm("norm", 10), 0.75)],
        {"measures": QUALITY},
        "norm does not help: nothing failed; on the loss alone: the same, and a gain of 10 % is ruled out; "
        "its sharpness was 0.05 lower (p < 0.001).",
    ),
    (
        [measured(arm("base", 60, 40), 0.80), measured(arm("norm", 60, 40, loss=1.5), 0.75)],
        {"measures": QUALITY},
        "norm does not help: 40 of 100 failed, 40 of 100 of base; a reduction of 20 points or more is ruled out; "
        "its loss was 50 % higher (p < 0.001); its sharpness was 0.05 lower (p < 0.001).",
    ),
    (
        [arm("base", 10), arm("norm", 10, loss=1.5)],
        {},
        "norm harms: nothing failed; on the loss alone: 50 % higher (p < 0.001).",
    ),
    (
        [arm("base", 10), arm("norm", 10, loss=4)],
        {},
        "norm harms: nothing failed; on the loss alone: 4 times as high (p < 0.001).",
    ),
    (
        [arm("base", 10), arm("norm", 10, loss=1e-6)],
        {},
        "norm helps: nothing failed; on the loss alone: 1e-06 times as high (p < 0.001).",
    ),
    (  # equal but for rounding
        [arm("base", 10, loss=0.3, spread=0), arm("norm", 10, loss=0.1 + 0.2, spread=0)],
        {},
        "norm does not help: nothing failed; on the loss alone: the same, and a gain of 10 % is ruled out.",
    ),
    (
        [arm("base", 10, spread=0), arm("norm", 10, spread=0)],
        {},
        "norm does not help: nothing failed; on the loss alone: the same, and a gain of 10 % is ruled out.",
    ),
    (
        [arm("base", 4, loss=-1.0), arm("norm", 4, loss=-1.1)],
        {"higher_is_better": True, "metric": "return", "margin": 0, "look": 2},
        "norm does not help: nothing failed; on the return alone: 0.1 lower, and any gain is ruled out.",
    ),
    (
        [arm("base", 10), arm("norm", 10, loss=1.001)],
        {},
        "norm does not help: nothing failed; on the loss alone: 0.1 % higher, and a gain of 10 % is ruled out.",
    ),
    (
        [arm("base", 4, loss=-1.0), arm("norm", 4, loss=-1.001)],
        {"higher_is_better": True, "metric": "return", "margin": 0.5},
        "norm does not help: nothing failed; on the return alone: 0.001 lower, and a gain of 0.5 is ruled out.",
    ),
    (
        [arm("base", 5, spread=0.4), arm("norm", 5, loss=0.9, spread=0.4)],
        {},
        "norm: undecided, nothing failed; lower loss, but could be luck (p = 0.35).",
    ),
    (
        [arm("base", 5, spread=0.4), arm("norm", 5, loss=1.2, spread=0.4)],
        {},
        "norm: undecided, nothing failed; loss 20 % higher, which could be luck.",
    ),
    (
        [arm("base", 3), arm("norm", 3, loss=1.05)],
        {},
        "norm: undecided, nothing failed; loss 5 % higher, within the margin.",
    ),
    ([arm("base", 3), arm("norm", 3)], {}, "norm: undecided, nothing failed; loss the same."),
    (  # no gain reaches a share of 1 or more, so that ruling it out would say nothing
        [arm("base", 5, spread=0.4), arm("norm", 5, loss=0.9, spread=0.4)],
        {"margin": 5},
        "norm: undecided, nothing failed; lower loss, but could be luck (p = 0.35).",
    ),
    (
        [arm("base", 10), arm("norm", 10, loss=1.5)],
        {"margin": 5},
        "norm does not help: nothing failed; on the loss alone: 50 % higher, and any gain is ruled out.",
    ),
    (
        [arm("base", 10), arm("norm", 10, loss=0.9)],
        {"failure_judged": False},
        "norm helps: failure not judged; on the loss alone: 10 % lower (p < 0.001).",
    ),
    # Open
    (
        [arm("base", 7, 3), arm("norm", 10)],
        {"looks_planned": True},
        "norm: undecided, 0 of 10 failed, 3 of 10 of base; fewer failures, but could be luck (p = 0.058); "
        "10 more seeds per arm would probably decide (81 % chance).",
    ),
    (
        [arm("base", 8, 4), arm("norm", 12)],
        {"looks_planned": True, "alpha": 0.02},
        "norm: undecided, 0 of 12 failed, 4 of 12 of base; fewer failures, but could be luck (p = 0.022); "
        "1 more seed per arm would probably decide (96 % chance).",
    ),
    (
        [arm("base", 17, 3), arm("norm", 18, 2)],
        {},
        "norm: undecided, 2 of 20 failed, 3 of 20 of base; fewer failures, but could be luck (p = 0.44); base fails "
        "seldom (15 %); more seeds may not be enough: 43 % chance at best.",
    ),
    (
        [arm("base", 12, 8), arm("norm", 10, 10)],
        {"smallest_effect": 0.05},
        "norm: undecided, 10 of 20 failed, 8 of 20 of base; more failures, but could be luck; more seeds may not be "
        "enough: 61 % chance at best.",
    ),
    (
        [arm("base", 9, 1), arm("norm", 10, loss=0.5)],
        {},
        "norm: undecided, 0 of 10 failed, 1 of 10 of base; fewer failures, but could be luck (p = 0.41); base fails "
        "seldom (10 %); more seeds may not be enough: 58 % chance at best; its loss was 50 % lower (p < 0.001).",
    ),
    (  # above the level, which 0.050 would not be
        [arm("base", 10, 14), arm("norm", 16, 8)],
        {"looks_planned": True},
        "norm: undecided, 8 of 24 failed, 14 of 24 of base; fewer failures, but could be luck (p = 0.0502); 30 more "
        "seeds per arm would probably decide (81 % chance).",
    ),
    ([arm("base", 2), arm("norm", 2)], {}, "norm: undecided, too few seeds to tell: 2, at least 3 are needed."),
    ([arm("base", 9), arm("norm", 2)], {}, "norm: undecided, too few seeds to tell: 2 of norm, at least 3 are needed."),
    (
        [arm("base", 5, 5), [replace(t, last_step=49) for t in arm("norm", 10)]],
        {},
        "norm: undecided, base ran 99 steps, norm 49: they can't be compared.",
    ),
    (  # its failures show that it ran at least that long
        [arm("base", 0, 10), [replace(t, last_step=49) for t in arm("norm", 10)]],
        {},
        "norm: undecided, base ran 99 steps, norm 49: they can't be compared.",
    ),
    (  # they may have been stopped when they failed
        [[replace(t, last_step=49) for t in arm("base", 0, 10)], arm("norm", 10)],
        {},
        "norm helps: 0 of 10 failed, 10 of 10 of base (p < 0.001); it fails 100 points less often (95 %: 61 to 100 "
        "less); loss not compared, all 10 of base failed.",
    ),
    (
        [arm("base", 2, 3, oom=15), arm("norm", 8, 12)],
        {},
        "norm: undecided, 15 trials of base without an outcome could change it: 12 of 20 failed, 3 of 5 of base.",
    ),
    (
        [arm("base", 8, 12), arm("norm", 13, oom=7)],
        {},
        "norm: undecided, 7 trials of norm without an outcome could change it: 0 of 13 failed, 12 of 20 of base.",
    ),
    (  # the loss of the five is lower, but had the others failed, norm would harm
        [arm("base", 20), arm("norm", 5, loss=0.5, oom=15)],
        {},
        "norm: undecided, 15 trials of norm without an outcome could change it: 0 of 5 failed, 0 of 20 of base.",
    ),
    (
        [arm("base", 5, oom=15), arm("norm", 20, loss=1.5)],
        {},
        "norm: undecided, 15 trials of base without an outcome could change it: 0 of 20 failed, 0 of 5 of base.",
    ),
    (
        [arm("base", 0, 10), arm("norm", 0, 10)],
        {},
        "norm: undecided, 10 of 10 failed, 10 of 10 of base.",
    ),
]


@pytest.mark.parametrize(("arms", "rules", "said"), SENTENCES)
def test_sentence(arms, rules, said):
    (sentence,) = verdict_of(stage("a", *arms), roles=Roles("base"), rules=Rules(**rules)).sentences
    assert sentence == said


def test_a_stage_b_that_repeats_some_of_stage_a():
    rows = (*arm("base", 3, 7), *arm("norm", 9, 1))
    verdict = verdict_of(Stage("a", (*rows, *arm("other", 3))), Stage("b", rows), Roles("base"))
    assert verdict.sentences[-1] == "norm: undecided, Stage B repeats trials of Stage A, which says nothing new."


def three(control, arch, clip, name="a"):
    return stage(name, control, arch, clip)


FAILS, ALL_FAIL = arm("control", 8, 12), [arm(name, 40, 60) for name in ("control", "arch", "clip")]
REASONS = [
    (
        (stage("a", arm("control", 8, 12), arm("arch", 20, loss=0.8)), stage("b", FAILS, arm("arch", 20))),
        "GOLD",
        "arch fails less often than control in both stages, reaches a lower loss, and was never nonfinite",
    ),
    (
        (three(FAILS, arm("arch", 8, 12), arm("clip", 20)), None),
        "SILVER",
        "arch is not shown to help, while clip fails less often than control at a loss within the margin; not tested "
        "at depth",
    ),
    (
        (three(FAILS, arm("arch", 20), arm("clip", 20)), None),
        "leaning SILVER (could be luck)",
        "arch is shown to fail less often and only lacks: lower loss, while clip fails less often than control at a "
        "loss within the margin; not tested at depth",
    ),
    (
        (three(*ALL_FAIL), three(*ALL_FAIL, name="b")),
        "PIVOT",
        "control fails in Stage B, and none of its candidates helps there: arch and clip",
    ),
    (
        (
            three(FAILS, arm("arch", 8, 12), arm("clip", 8, 12)),
            three(FAILS, arm("arch", 7, 13), arm("clip", 7, 13), name="b"),
        ),
        "leaning PIVOT (could be luck)",
        "control fails in Stage B, and none of its candidates fails less often there: arch and clip",
    ),
    (
        (
            stage("a", measured(arm("control", 8, 12), 0.8), measured(arm("arch", 20, loss=0.8), 0.7)),
            stage("b", FAILS, arm("arch", 20)),
        ),
        "leaning GOLD (could be luck)",
        "arch fails less often than control in both stages, reaches a lower loss, and was never nonfinite, but its "
        "sharpness is shown to be worse",
    ),
    (
        (
            stage("a", arm("control", 4, 2), arm("arch", 6, loss=0.9, spread=0.2)),
            stage("b", arm("control", 1, 5), arm("arch", 3, 3)),
        ),
        "leaning GOLD (could be luck)",
        "arch fails less often than control in both stages, reaches a lower loss, and was never nonfinite; fewer "
        "failures and lower loss in Stage A and fewer failures in Stage B could be luck",
    ),
    (
        (three(arm("control", 4, 2), arm("arch", 4, 2), arm("clip", 6)), None),
        "leaning SILVER (could be luck)",
        "arch is not shown to help, while clip fails less often than control at a loss within the margin; not tested "
        "at depth; fewer failures in Stage A could be luck",
    ),
    (
        (three(FAILS, arm("arch", 20, loss=0.8), arm("clip", 20)), None),
        "INCONCLUSIVE",
        "arch: meets its criteria in Stage A, not run in Stage B; clip: meets its criteria in Stage A, not run in "
        "Stage B",
    ),
    (
        (three(FAILS, arm("arch", 2), arm("clip", 20, loss=2.0)), None),
        "INCONCLUSIVE",
        "arch: fewer failures, lower loss and finite values throughout can't be tested in Stage A, not run in Stage B; "
        "clip: does not show loss within the margin in Stage A, not run in Stage B",
    ),
]


@pytest.mark.parametrize(("stages", "headline", "reason"), REASONS)
def test_verdict_and_its_reason(stages, headline, reason):
    verdict = verdict_of(*stages, rules=Rules(measures=QUALITY))
    assert (verdict.headline, verdict.reason) == (headline, reason)


def test_reason_where_a_study_asks_for_more_at_depth():
    a = three(FAILS, arm("arch", 20, loss=0.8), arm("clip", 20))
    b = three(FAILS, arm("arch", 20, grad_ratio=20.0), arm("clip", 20, loss=1.1, grad_ratio=20.0), name="b")
    verdict = verdict_of(a, b, rules=Rules(follow_up_criteria=("grad_bounded", "matches_stage_a")))
    assert verdict.headline == "INCONCLUSIVE"
    assert verdict.reason == (
        "arch: meets its criteria in Stage A, does not show bounded gradients and Stage A's loss in Stage B; "
        "clip: meets its criteria in Stage A, does not show bounded gradients and Stage A's loss in Stage B"
    )


@pytest.mark.parametrize(
    ("arms", "headline"),
    [
        ([CONTROL, arm("norm", 9, 1)], "norm helps"),
        ([arm("base", 8, 12), arm("norm", 20), arm("cure", 20)], "norm and cure help"),
        ([CONTROL, arm("norm", 3, 7)], "no arm is shown to help"),
    ],
)
def test_headline_of_a_study_without_roles(arms, headline):
    verdict = verdict_of(stage("a", *arms), roles=Roles("base"))
    assert verdict.headline == headline
    assert replace(verdict, tolerant=()).headline == "no arm is shown to tolerate more"  # a stress study
    assert replace(verdict, tolerant=("norm", "cure")).headline == "norm and cure tolerate more"


STEPS = [
    ([arm("control", 2), arm("arch", 2)], "run 10 seeds of control and arch", "--seeds 10 --arms control,arch"),
    ([arm("control", 5, running=1), arm("arch", 5)], "wait, 1 trial still runs", None),
    ([arm("control", 5, running=2), arm("arch", 5)], "wait, 2 trials still run", None),
    (
        [arm("control", 8, 12), arm("arch", 20, oom=1), arm("clip", 8, 11, oom=1)],
        "rerun the trial of clip without an outcome",
        "--seeds 20 --arms clip --retry-oom",
    ),
    (  # the forecast of the sentence, since that is no more than as many again
        [arm("control", 2, 18), arm("arch", 2, 18)],
        "run 19 more seeds of control and arch",
        "--seeds 39 --arms control,arch",
    ),
    (  # 18 more of control are 33 more of the other
        [arm("control", 12, 8), arm("arch", 5)],
        "run 38 seeds of control and arch",
        "--seeds 38 --arms control,arch",
    ),
    (
        [arm("control", 5, 5), [replace(t, outcome=Outcome.INFRA_ERROR) for t in arm("arch", 10)]],
        "fix what stops arch (infra_error), then rerun the 10 trials of arch without an outcome; "
        "trials that were given up need a higher --attempts",
        "--seeds 10 --arms control,arch",
    ),
    (
        [arm("control", 5, 5), arm("arch", oom=2)],
        "fix what stops arch (oom), then run 10 seeds of control and arch",
        "--seeds 10 --arms control,arch --retry-oom",
    ),
    (  # seeds that do not begin with 0
        [[replace(t, seed=t.seed + 70) for t in trials] for trials in (arm("control", 2), arm("arch", 1))],
        "run 10 seeds of control and arch",
        "--seeds 70,71,72,73,74,75,76,77,78,79 --arms control,arch",
    ),
    (
        [arm("control", 10), [replace(t, seed=7) for t in arm("arch", oom=1)]],
        "fix what stops arch (oom), then run 10 seeds of control and arch",
        "--seeds 10 --arms control,arch --retry-oom",
    ),
    (  # as of a script that ignores its seed
        [
            arm("control", 5, 5),
            [*arm("arch", 1), *(replace(t, outcome=Outcome.INFRA_ERROR) for t in arm("arch", 4)[1:])],
        ],
        "fix what stops arch (infra_error), then rerun the 3 trials of arch without an outcome; "
        "trials that were given up need a higher --attempts",
        "--seeds 10 --arms control,arch",
    ),
    (
        [arm("control", 8, 12), arm("arch", 13, oom=7)],
        "rerun the 7 trials of arch without an outcome",
        "--seeds 20 --arms arch --retry-oom",
    ),
]


@pytest.mark.parametrize(("arms", "text", "command"), STEPS)
def test_next_step_and_its_command(arms, text, command):
    step = verdict_of(stage("a", *arms), roles=Roles("control")).next
    store = Source({"a": Place("my study.yaml", "mine", ("--profile", "small"))})
    assert as_run(step, store).text == text
    assert "--attempts" not in as_run(step, Source(again="fnostab decide --runs r.yaml")).text
    expected = f"fnostab run 'my study.yaml' --experiment mine {command} --profile small"
    assert command_of(step, store) == (expected if command else "fnostab watch mine")
    assert command_of(step, Source(again="fnostab decide --table t.csv")) == "fnostab decide --table t.csv"
    named = replace(store, tracking_uri="sqlite:///team.db")
    assert command_of(step, named) == f"{command_of(step, store)} --tracking-uri sqlite:///team.db"


def test_arms_of_which_nothing_was_run_are_the_next_step_of_a_study_with_control_alone():
    half = Stage("a", tuple(arm("control", 2)), known_missing={"same": (0, 1), "clip": (0, 1)})
    half = replace(half, same_settings={"same": "control"})
    step = verdict_of(half, roles=Roles("control")).next
    assert step.text == "run clip as well"
    assert command_of(step, Source({"a": Place("my.yaml")})) == "fnostab run my.yaml --seeds 2 --arms control,clip"
    alone = Stage("a", tuple(arm("control", 2)), known_missing={}, not_asked=("clip",))
    assert verdict_of(alone, roles=Roles("control")).next == replace(step, arms=("control", "clip"))


@pytest.mark.parametrize(
    ("arms", "roles", "text"),
    [
        ([arm("control", 10)], Roles("control"), "run another arm: there is only control"),
        (
            [arm("control", 3, 7), arm("arch", 9, 1)],
            Roles("control"),
            "nothing more to run: every arm has an answer",
        ),
        (
            [arm("control", 10), arm("arch", 10)],
            Roles("control"),
            "control did not fail: try a harder setting, where it does",
        ),
        (
            [arm("control", 10), arm("arch", 5, 5)],
            Roles("control"),
            "nothing more to run: every arm has an answer",
        ),
        (
            [arm("control", 17, 3), arm("arch", 18, 2)],
            Roles("control"),
            "try a setting or an arm where the difference is larger",
        ),
        (  # the forecast of the sentence, where that is more than as many again
            [arm("control", 7, 3), arm("arch", 10), arm("clip", 6, 4)],
            Roles("control"),
            "try a setting or an arm where the difference is larger; or run 40 more seeds of control and arch",
        ),
        (
            [arm("control", 0, 10), arm("arch", 0, 10)],
            Roles("control"),
            "every trial of every arm failed: check what counts as a failure, or try an easier setting",
        ),
        (  # although a reduction is ruled out, and no trial has a value of the metric
            [arm("control", 0, 20), arm("arch", 0, 20)],
            Roles("control"),
            "every trial of every arm failed: check what counts as a failure, or try an easier setting",
        ),
        (
            [arm("control", 0, 2, kind="nonfinite"), arm("arch", 0, 2, kind="nonfinite")],
            Roles("control"),
            "every trial of every arm failed: try an easier setting",
        ),
        (
            [unmeasured(arm("control", 2)), unmeasured(arm("arch", 2))],
            Roles("control"),
            "correct the study's metric, or record it: no trial has a value of it",
        ),
        # failures need no value
        ([arm("control", 0, 1)], Roles("control"), "run another arm: there is only control"),
        (  # what an arm costs is not known
            [unmeasured(arm("control", 3, 7)), unmeasured(arm("arch", 9, 1))],
            Roles("control"),
            "correct the study's metric, or record it: no trial has a value of it",
        ),
        (  # a study of failures alone, which are still open
            [unmeasured(arm("control", 2, 18)), unmeasured(arm("arch", 3, 17))],
            Roles("control"),
            "try a setting or an arm where the difference is larger; or run 50 more seeds of control and arch",
        ),
        (
            [arm("control", 5, 5), [replace(t, last_step=49) for t in arm("arch", 10)]],
            Roles("control"),
            "run the arms for the same number of steps, or write `lengths: free` in the study",
        ),
        ([arm("control", 10), arm("arch", 2, 8)], Roles("control", "arch"), "look for another remedy: arch harms"),
        (
            [arm("control", 10), arm("arch", 2, 8), arm("clip", 2, 8)],
            Roles("control", "arch", "clip"),
            "look for another remedy: arch and clip harm",
        ),
    ],
)
def test_next_step_that_is_no_command(arms, roles, text):
    step = verdict_of(stage("a", *arms), roles=roles).next
    assert step.text == text
    assert command_of(step, Source({"a": Place("s", "mine")}, "deeper")) == ""


@pytest.mark.parametrize(
    ("stages", "text"),
    [
        (REASONS[0][0], "nothing more to run: use arch"),
        (REASONS[3][0], "look for another remedy: none of these arms helps at depth"),
        (
            [
                stage(name, *(arm(each, 0, 20) for each in ("control", "arch", "clip"))) for name in "ab"
            ],  # no loss at all
            "look for another remedy: none of these arms helps at depth",
        ),
        (
            (
                Stage("a", (*arm("control", 3, 7), *arm("arch", 9, 1), *arm("clip", 3, 7))),
                Stage("b", (*arm("control", 3, 7), *arm("arch", 9, 1))),
            ),
            "run Stage B: its trials must not be those of Stage A",
        ),
    ],
)
def test_next_step_after_two_stages(stages, text):
    assert verdict_of(*stages).next.text == text


def test_stage_b_takes_the_arms_and_settings_of_stage_a():
    step = verdict_of(three(FAILS, arm("arch", 20, loss=0.8), arm("clip", 8, 12))).next
    assert step.text == "run Stage B with control and arch"
    assert command_of(step, Source({"a": Place("s", "mine")}, "deeper")) == "fnostab run deeper --from mine"
    assert command_of(step, Source({"a": Place("s")}, "deeper")) == "fnostab run deeper --arms control,arch"
    assert command_of(step, Source()) == ""


# The evidence


@pytest.mark.parametrize(
    ("arms", "rules", "name", "said"),
    [
        (
            [arm("base", 7, 3), arm("norm", 10)],
            {},
            "fewer_failures",
            "0/10 failed (at most 26 %), base 3/10 failed; reduction 0.3 [-0.0376, 0.603], Boschloo, p = 0.0579 "
            "(one-sided), could be luck",
        ),
        (
            [arm("base", 6), arm("norm", 6)],
            {},
            "fewer_failures",
            "0/6 failed (at most 39 %), base 0/6 failed (at most 39 %); neither failed",
        ),
        ([arm("base", 6), arm("norm", 6)], {"failure_judged": False}, "fewer_failures", "failure not judged"),
        (
            [arm("base", 7, 3), arm("norm", 7, 2, oom=1)],
            {},
            "fewer_failures",
            "2/9 failed, base 3/10 failed; 1 trial without an outcome could change it",
        ),
        (
            [arm("base", 6), arm("norm", 5, 1, loss=0.9)],
            {},
            "better_loss",
            "median 0.9 of the 5 of 6 that did not fail, base median 1 of the 6 of 6 that did not fail; "
            "ratio 0.9 [0.878, 0.923], Mann-Whitney, p = 0.00216 (one-sided), significant",
        ),
        (
            [arm("base", 5, loss=-1.0), arm("norm", 5, loss=-1.001)],
            {"higher_is_better": True, "margin": 0.5},
            "loss_within_margin",
            "median -1.001 of the 5 of 5 that did not fail, base median -1 of the 5 of 5 that did not fail; "
            "difference -0.001 [-0.031, 0.029], Mann-Whitney, shifted by the margin, p = 0.00397 (one-sided), "
            "significant",
        ),
        (
            [arm("base", 6), arm("norm", 6)],
            {"margin": None},
            "loss_within_margin",
            "median 1 of the 6 of 6 that did not fail, base median 1 of the 6 of 6 that did not fail; "
            "the study names no margin",
        ),
        (
            [arm("base", 0, 6), arm("norm", 6)],
            {},
            "better_loss",
            "median 1 of the 6 of 6 that did not fail, base no median (none of 6 did not fail); "
            "Mann-Whitney, counting a failed run as worst of all, p = 0.00108 (one-sided), significant",
        ),
        (
            [arm("base", 5), [replace(t, loss=None) for t in arm("norm", 5)]],
            {},
            "better_loss",
            "no median (5 of 5 did not fail, of unknown loss), base median 1 of the 5 of 5 that did not fail; "
            "the losses of the successes are not known",
        ),
        ([arm("base", 6), arm("norm", 5, 1, kind="nonfinite")], {}, "no_nonfinite", "1 of 6 nonfinite"),
    ],
)
def test_evidence_of_a_criterion(arms, rules, name, said):
    verdict = verdict_of(stage("a", *arms), roles=Roles("base"), rules=Rules(**rules))
    assert evidence_text(criterion(verdict, "a", "norm", name)) == said


def test_reports_of_stage_b():
    a = stage("a", arm("control", 5), arm("arch", 5))
    b = stage("b", arm("control", 5, loss=0.9, grad_ratio=12.0), arm("arch", 0, 5))
    assert [c.detail for c in verdict_of(a, b).criteria if not c.decides] == [
        "gradient p99 at most 10 times its median in 0 of 5 trials",
        "loss 0.9, Stage A 1",
        "gradient p99 at most 10 times its median in 0 of 0 trials",
        "no success to compare in both stages",
    ]


# The other lines

STUDY = SimpleNamespace(
    name="mine", roles={}, profile="small", size="3 layers", caveats=["a small size"], same_for_all=("data", "noise")
)


def test_lines_of_the_evidence():
    rows = stage("a", arm("base", 8, 12, oom=2), arm("norm", 9, 1, running=1))
    verdict = verdict_of(rows, roles=Roles("base"), rules=Rules(look=2))
    case = Case(verdict, (rows,), {"a": STUDY})
    assert remarks(case) == [
        "fewest failures: norm (1/10); lowest median loss of all arms (tied): base (1), norm (1)",
        "base: 2 oom (seeds 20, 21): not in the rate of 12/20",
        "norm: 1 running (seed 10): not in the rate of 1/10",
        "norm against base: loss 0.995 times as high over 8 seeds at which neither failed; "
        "counting a failed run as worst of all, p = 0.012 (one-sided, not corrected for the number of arms)",
    ]
    title = "Criteria, arm against base; p corrected for the number of arms"
    assert criteria_table("a", verdict).title == title
    assert conditions(case.studies) == [
        "mine, small profile, 3 layers",
        "a small size",
        "Varied: what is drawn from the seed. The same for all seeds: data, noise. The answer holds only for these.",
    ]
    assert conditions({"a": SimpleNamespace(name="mine", roles={})}) == []  # a name alone is no condition
    assert scope({"a": SimpleNamespace(same_for_all=("object", "validation set"))}) == [
        "Varied: what is drawn from the seed. The same for all seeds: object, validation set. The answer holds only "
        "for these. More seeds do not reduce the sampling error of one validation set."
    ]
    assert look_text(verdict) == "This is look 2 at this study, so it tests at 0.0125 instead of 0.05."
    assert look_text(replace(verdict, rules=Rules())) == ""
    strict = Rules(alpha=0.0312)
    assert look_text(replace(verdict, rules=strict)) == "Tested at 0.0312, the level of this study."
    planned = replace(strict, look=2, looks_planned=True)
    assert look_text(replace(verdict, rules=planned)) == "Tested at 0.0312, the level of each planned look."
    beside = {"constant_loss": 0.21, "noise_floor_loss": 0.045, "not_judged": ("exploded: needs two validations",)}
    known = stage("a", arm("base", 3, **beside), arm("norm", 2, 1, oom=1, **beside | {"constant_loss": 0.22}))
    assert remarks(Case(verdict_of(known, roles=Roles("base")), (known,)))[1:3] == [
        "exploded not judged in 6 of 6 trials: needs two validations",
        "reference validation losses: 0.21 to 0.22 of the best constant output, "
        "0.045 of a right prediction, by noise alone",
    ]
    bare = stage("a", arm("base", 4, 6), unmeasured(arm("norm", 10)))  # whose losses can't be ranked
    assert remarks(Case(verdict_of(bare, roles=Roles("base")), (bare,))) == [
        "fewest failures: norm (0/10); lowest median loss of all arms: base (1)"
    ]
    two = stage("a", arm("control", 9, 1), arm("arch", 9, 1)), stage("b", arm("control", oom=3), arm("arch", oom=3))
    assert remarks(Case(verdict_of(*two), two))[:2] == [
        "Stage A: fewest failures (tied): control (1/10), arch (1/10); lowest median loss of all arms (tied): "
        "control (1), arch (1)",
        "Stage B: no training outcome",
    ]


def test_the_page_of_a_verdict_begins_with_what_its_headline_does_not_say():
    rows = stage("a", arm("base", 8, 12), arm("norm", 20))
    of_one_stage = to_markdown(Case(verdict_of(rows, roles=Roles("base")), (rows,)))
    assert of_one_stage.startswith("- norm helps")
    assert "\n| arm | failed | 95 % interval | median [quartiles] of those that did not fail |\n| --- |" in of_one_stage
    assert "\n| norm | fewer failures | met | 0/20 failed" in of_one_stage
    two = stage("a", arm("control", 9, 1), arm("arch", 9, 1)), stage("b", arm("control", 9, 1), arm("arch", 9, 1))
    verdict = verdict_of(*two)
    with_roles = to_markdown(Case(verdict, two))
    assert with_roles.startswith(f"{verdict.reason}\n")
    assert "\n| Stage B | arch | fewer failures | not met | 1/10 failed" in with_roles


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (Rules(), "fewest failures: clip (0/10); lowest median loss of all arms: arch (0.8)"),
        (
            Rules(metric="score", higher_is_better=True),
            "fewest failures: clip (0/10); highest median score of all arms: base (1)",
        ),
        (Rules(failure_judged=False), "lowest median loss of all arms: arch (0.8)"),
    ],
)
def test_the_best_median_is_that_of_all_arms_with_control(rules, said):
    rows = stage("a", arm("base", 8, 2), arm("arch", 8, 2, loss=0.8), arm("clip", 10, loss=0.9), arm("none", 0, 9))
    assert best_arms(verdict_of(rows, roles=Roles("base"), rules=rules)) == said


def test_medians_that_differ_by_rounding_are_tied():
    rows = stage("a", arm("base", 3, loss=0.3, spread=0), arm("arch", 3, loss=0.1 + 0.2, spread=0))
    assert best_arms(verdict_of(rows, roles=Roles("base"))).endswith("(tied): base (0.3), arch (0.3)")


def test_a_chance_that_is_not_enough_is_not_rounded_to_one_that_is():
    assert str(MoreSeeds(None, 0.7999)) == "more seeds may not be enough: 79 % chance at best"


def test_lines_on_what_is_judged():
    record = SimpleNamespace(spec=STUDY, run_id="f" * 32, start_ms=0, others=("e" * 32, "d" * 32))
    rows = Stage("a", tuple(arm("base", 3)), {"norm": (0, 1, 2)})
    assert re.fullmatch(
        r"exp, study mine of \S+ \S+, 3 trials, run f{32}; 2 other studies in this experiment: "
        r"--study-run e{32}, \.\.\.",
        judged_line("a", record, rows, "exp"),
    )
    study = TableStudy(control="base")
    (gone,) = make_case({"a": rows}, {"a": study}, source=Source()).judged
    assert gone == "norm is left out: none of its 3 trials has a run"
    twins = Stage("a", (*arm("base", 3, 1), *arm("norm", 3, 1), *arm("other", 4)))
    (alike,) = make_case({"a": twins}, {"a": study}, source=Source()).judged
    assert alike == "norm gave the same numbers as base at every seed: does what it changes have an effect?"
    constant = Stage("a", (*arm("base", 4, spread=0), *arm("norm", 3, 1, spread=0)))  # the seed decides which fails
    assert make_case({"a": constant}, {"a": study}, source=Source()).judged == (
        "base has the same loss at every seed, 1: "
        "if the seed has no effect, its trials count as one, and no p-value holds",
    )
    measured_otherwise = Stage("a", (*measured(arm("base", 4), 0.8), *measured(arm("norm", 4), 0.7)))
    assert make_case({"a": measured_otherwise}, {"a": study}, source=Source()).judged == ()


def test_without_a_rule_of_failure_a_sentence_counts_none():
    rules = Rules(failure_judged=False)
    lost = [replace(t, outcome=Outcome.INFRA_ERROR, loss=None) for t in arm("norm", 3)[2:]]
    verdict = verdict_of(stage("a", arm("base", 3), [*arm("norm", 2), *lost]), roles=Roles("base"), rules=rules)
    assert verdict.sentences == (
        "norm: undecided, 1 trial of norm without an outcome could change it: failure not judged.",
    )
    blown = stage("a", arm("base", 3, 7, kind="nonfinite"), arm("norm", 9, 1, kind="nonfinite"))
    (said,) = verdict_of(blown, roles=Roles("base"), rules=rules).sentences
    assert said.startswith("norm helps: 1 of 10 nonfinite, 7 of 10 of base (p = 0.004)")
    alike = verdict_of(stage("a", arm("base", 10), arm("norm", 10)), roles=Roles("base"), rules=rules)
    assert alike.next.text == "say when a trial has failed: failure is not judged"  # not: base did not fail


@pytest.mark.parametrize("last_step", [89, 999])
def test_trials_that_ended_well_before_their_schedule_are_told(last_step):
    rows = [replace(t, last_step=last_step, scheduled_steps=1000) for t in arm("norm", 9, 1)]
    assert ended_early_line("norm", rows) == (
        None
        if last_step == 999
        else "norm: the records of 9 of 9 trials that converged end before their schedule, such as seed 0 after 90 of "
        "1000 steps; what they did not train through could not fail"
    )
    assert ended_early_line("norm", arm("norm", 3)) is None  # of an unknown schedule


def test_trials_that_failed_after_their_end_or_did_not_fail_at_a_step_are_told():
    rows = [*arm("base", 2, 3), *arm("norm", 3)]
    odd = [replace(t, failure_step=None if t.arm == "norm" else 5 if t.seed == 1 else 101) for t in rows]
    odd[2:4] = [replace(t, failure_step=100) for t in rows[2:4]]  # announced before that step was recorded
    assert make_case({"a": Stage("a", tuple(odd))}, {"a": TableStudy(control="base")}, source=Source()).judged == (
        "base: failure_step contradicts outcome or last_step in 3 of 5 trials, such as seed 0: converged, failure_step "
        "101, last_step 99; the outcome counts",
    )


def test_a_line_on_arms_that_were_not_judged_by_the_rules_of_others():
    reasons = ("exploded: needs two validations", "stagnated: the loss of an output that has learnt nothing is unknown")
    rare = [replace(t, not_judged=reasons) for t in arm("rare", 3)]
    said = (
        "exploded was not judged (needs two validations) in trials that converged: 3 of rare; others were judged "
        "by it; do not trust these failure rates until every arm is judged alike"
    )
    assert rules_judged_in_part([*arm("base", 0, 2, kind="exploded"), *rare]) == [said]
    assert rules_judged_in_part([*(replace(t, not_judged=reasons[1:]) for t in arm("base", 2)), *rare]) == [said]
    assert rules_judged_in_part(rare) == []  # alike, if in no trial
    verdict = verdict_of(stage("a", arm("base", 0, 3, kind="exploded"), rare), roles=Roles("base"))
    assert verdict.next_step == "record what the rules need in every arm: some trials were judged by fewer rules"
    (sentence,) = verdict.sentences
    assert sentence == (
        "rare: undecided, only some of the trials were judged by exploded (needs two validations): they can't be "
        "compared."
    )
    assert rules_judged_in_part([*arm("base", 0, 2, kind="nonfinite"), *rare]) == []


@pytest.mark.parametrize("outcome", ["collapsed", "stagnated"])
def test_arms_are_compared_where_scripts_announce_a_failure_that_no_rule_judges(outcome):
    reasons = (
        "collapsed: needs a measure of the output's spread",
        "stagnated: the loss of an output that has learnt nothing is unknown",
    )
    rows = stage("a", arm("base", 3, 7, kind=outcome, not_judged=reasons), arm("norm", 10, not_judged=reasons))
    (sentence,) = verdict_of(rows, roles=Roles("base")).sentences
    assert sentence.startswith("norm helps: 0 of 10 failed, 7 of 10 of base (p < 0.001)")
    assert rules_judged_in_part(rows.trials) == []
    assert learning_not_judged(rows.trials) is None
    assert learning_not_judged(rows.arm("norm")) is not None


def test_lines_on_arms_with_the_settings_of_control():
    rows = replace(stage("a", arm("base", 3, 5), arm("norm", 3, 5)), same_settings={"norm": "base"})
    case = make_case({"a": rows}, {"a": TableStudy(control="base")}, source=Source())
    assert case.judged == ("norm has the settings of base: it is not compared, and no test counts it",)
    assert case.verdict.next_step == "run another arm: all have the settings of base"
    assert "\n\n\n" not in str(case)
    verdict = verdict_of(rows, roles=Roles("base", "norm"))
    assert verdict.reason == "norm: has the settings of base in Stage A, not run in Stage B"


def test_findings_of_studies_that_turn_one_setting():
    families = {name: {f"{name}_{value:g}": value for value in (0.01, 0.02, 0.04)} for name in ("base", "cure")}
    counts = {"base": (0, 3, 6), "cure": (0, 0, 1)}
    rows = [arm(each, 6 - n, n) for name, ns in counts.items() for each, n in zip(families[name], ns, strict=True)]
    assert compare_stress(stage("a", *rows), families, "lr", "base").finding == (
        "half of base's trials fail at lr 0.02 (95 %: after 0.01 and before 0.04); "
        "cure tolerates more: beyond 0.04 (95 %: after 0.02) (p = 0.016)"
    )
    worse = [arm(f"cure_{value:g}", 0, 6) for value in (0.01, 0.02, 0.04)]
    assert compare_stress(stage("a", *rows[:3], *worse), families, "lr", "base").finding.endswith(
        "; no arm tolerates more than that, as far as these trials can tell"
    )
    none = compare_stress(stage("a", arm("base_0.01", oom=3)), families, "lr", "base")
    assert none.finding == "where half of base's trials fail is unknown: no trial has a training outcome"

    depths = {"d4": 4, "d6": 6}
    for arms, said in (
        (
            [arm("d4", 10), arm("d6", 7, 3)],
            "training begins to fail at depth 6: 3/10 failed (95 % interval 11% to 60%), the lowest value that fails",
        ),
        ([arm("d4", 10), arm("d6", 10)], "no trial failed at depth 4, 6"),
        ([arm("d4", oom=2)], "no trial has a training outcome at any depth"),
    ):
        assert compare_along(stage("a", *arms), "depth", depths, "d4").finding == said


def test_lines_on_a_study_that_is_probably_asked_in_the_wrong_way():
    assert metric_not_recorded("val/lss", ["train/loss", "val/loss"]) == (
        "no trial recorded val/lss; recorded: val/loss (did you mean 'val/loss'?)"
    )
    assert metric_not_recorded("val/loss", []) == (
        "no trial recorded val/loss; recorded: no validation; "
        "rec.validation(i, loss=...), or a monitor and self.log('val_loss', ...), records val/loss"
    )
    assert metric_not_recorded("val/mae", ["lr"]) == (
        "no trial recorded val/mae; recorded: lr; "
        "rec.validation(i, loss=...), or a monitor and self.log('val_loss', ...), records val/loss; "
        "if the module logs 'mae', use StabilityMonitor(val_loss_name='mae')"
    )
    assert metric_not_recorded("mae", ["lr"]).endswith(
        "if the module logs 'mae', use StabilityMonitor(val_loss_name='mae'), which records val/mae"
    )
    silent = [TrialRow("silent", seed, Outcome.CONVERGED) for seed in range(3)]
    assert arms_without_metric("val/loss", [*arm("base", 1, 2), *silent]) == (
        "trials that recorded no val/loss were judged by their training loss alone, others by val/loss too: "
        "3 of silent; "
        "do not trust their failure rates until every arm records val/loss"
    )
    assert arms_without_metric("val/loss", silent) is None  # of nobody: another line says so
    assert arms_without_metric("val/loss", arm("base", 1, 2)) is None
    unjudged = ("collapsed: needs a measure of the output's spread", "stagnated: needs a validation")
    free = [replace(trial, not_judged=unjudged) for trial in arm("base", 1, 2, kind="exploded")]
    said = (
        "no rule says which trials have learnt nothing, so they count as successes: "
        "set baseline or failed under outcome"
    )
    assert learning_not_judged(free) == said
    assert learning_not_judged([replace(trial, not_judged=unjudged[:1]) for trial in free]) is None
    assert learning_not_judged([replace(trial, outcome=Outcome.NONFINITE) for trial in free]) is None
    alike = [*arm("base", 0, 2), *arm("norm", 0, 2)]
    rules = OutcomeRules(collapsed={"val/spread": Bound(below=9.0)})
    study = SimpleNamespace(rules=rules, judged={}, metric=SimpleNamespace(name="val/loss"))
    said = "all trials of all arms are collapsed: check val/spread below 9.0 of collapsed"
    assert all_failed_alike(alike, study) == said
    rows, study = stage("a", arm("base", 3), arm("norm", 3)), TableStudy(control="base", margin=5)
    (share,) = make_case({"a": rows}, {"a": study}, source=Source()).judged[1:]
    assert share == (
        "margin 5 is taken as a share, as every loss is above 0 and lower is better: "
        "up to 500 % higher counts as no worse"
    )
    below = stage("a", arm("base", 3, loss=-1), arm("norm", 3, loss=-2))
    assert make_case({"a": below}, {"a": study}, source=Source()).judged == ()
    across = stage("a", arm("base", 3, loss=0), arm("norm", 3))
    assert make_case({"a": across}, {"a": study}, source=Source()).judged[-1] == (
        "margin 5 is taken in units of the loss, not as a share of control's: a share needs values above 0, and the "
        "lowest is 0"
    )
    higher = study.model_copy(update={"metric": Metric(name="loss", higher_is_better=True)})
    assert "margin" not in str(make_case({"a": across}, {"a": higher}, source=Source()).judged)
    assert margin_as_share("loss", 0.1) is margin_as_share("loss", None) is None


SAY_NOTHING = ("follow_up.py", "sequential.py", "external.py")  # said by other commands, or by test_decide_runs.py


def words_of(path):
    """Words in a source file that may come to be printed: of every text but docstrings and errors."""
    tree = ast.parse(path.read_text())
    silent = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            silent |= set(ast.walk(node))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            silent.add(node.body[0].value)
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n not in silent]
    stripped = [text.strip(" ;:,.()") for text in texts if isinstance(text, str) and not text.startswith(("|", "bold"))]
    return {text for text in stripped if len(re.findall("[A-Za-z]{2,}", text)) > 1 and " " in text and "{" not in text}


def test_every_sentence_in_the_source_stands_here():
    texts = [n.value for n in ast.walk(ast.parse(Path(__file__).read_text())) if isinstance(n, ast.Constant)]
    here = [text for text in texts if isinstance(text, str)]
    room = Path(fnostab.decision.__file__).parent
    sources = [path for path in room.glob("*.py") if path.name not in SAY_NOTHING]
    sources.append(room.parent / "report" / "verdict.py")
    missing = {text: path.name for path in sources for text in words_of(path) if not any(text in h for h in here)}
    assert missing == {}
    coined = re.compile("unsupported|predictive power|levels off|n_ok|not ok|better_loss (met|not)")
    assert not [text for path in sources for text in words_of(path) if coined.search(text)]
