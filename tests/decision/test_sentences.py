"""Every sentence that `fnostab decide` says of an arm, beside the trials that it says it of; and its other lines."""

from dataclasses import replace

import pytest
from decision_helpers import arm, stage, verdict_of

from fnostab.decision import Roles, Rules, Stage
from fnostab.decision.commands import Place, Source, command_of
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import Measure

QUALITY = {"sharpness": Measure(higher_is_better=True, margin=0.02)}
CONTROL = arm("base", 3, 7)


def measured(trials, value):
    return [replace(t, measures={"sharpness": value}) for t in trials]


SENTENCES = [
    # Fails less often
    (
        [CONTROL, arm("norm", 9, 1)],
        {},
        "norm helps: 1 of 10 failed, 7 of 10 of base (p = 0.004); it fails 60 points less often (17 to 81 less).",
    ),
    (
        [arm("base", 6, 4), arm("norm", 10)],
        {},
        "norm helps: 0 of 10 failed, 4 of 10 of base (p = 0.021); it fails 40 points less often (4 to 69 less); "
        "fragile: one other outcome would change this.",
    ),
    (
        [arm("base", 25, 75), arm("norm", 43, 57)],
        {},
        "norm helps: 57 of 100 failed, 75 of 100 of base (p = 0.004); it fails 18 points less often (5 to 30 less), "
        "fewer than the 20 that the study asks for.",
    ),
    (
        [arm("base", 8, 12), arm("norm", 20, loss=1.5)],
        {},
        "norm helps, at a cost: 0 of 20 failed, 12 of 20 of base (p < 0.001); it fails 60 points less often (33 to 78 "
        "less); its loss was 50 % higher (p < 0.001).",
    ),
    (
        [arm("base", 8, 12, spread=0.25), arm("norm", 20, loss=1.15, spread=0.08)],
        {},
        "norm helps: 0 of 20 failed, 12 of 20 of base (p < 0.001); it fails 60 points less often (33 to 78 less); "
        "its loss was 15 % higher, which could be luck.",
    ),
    (
        [measured(arm("base", 8, 12), 0.8), measured(arm("norm", 20), 0.7)],
        {"measures": QUALITY},
        "norm helps, at a cost: 0 of 20 failed, 12 of 20 of base (p < 0.001); it fails 60 points less often (33 to 78 "
        "less); its sharpness was 0.1 lower (p < 0.001).",
    ),
    (
        [arm("base", 8, 12), arm("norm", 20)],
        {"measures": QUALITY},
        "norm helps: 0 of 20 failed, 12 of 20 of base (p < 0.001); it fails 60 points less often (33 to 78 less); "
        "sharpness not compared, it was not measured.",
    ),
    (
        [arm("base", 0, 20), arm("norm", 20)],
        {},
        "norm helps: 0 of 20 failed, 20 of 20 of base (p < 0.001); it fails 100 points less often (77 to 100 less); "
        "loss not compared, only 0 of 20 of base did not fail.",
    ),
    (
        [arm("base", 2, 18), [replace(t, last_step=49) for t in arm("norm", 20)]],
        {"free_lengths": True},
        "norm helps: 0 of 20 failed, 18 of 20 of base (p < 0.001); it fails 90 points less often (64 to 97 less); "
        "loss not compared, only 2 of 20 of base did not fail; it ran 49 steps against 99.",
    ),
    # Fails more often
    (
        [arm("base", 100), arm("norm", 1, 2)],
        {},
        "norm harms, it fails more often: 2 of 3 failed, 0 of 100 of base (p < 0.001); it fails 67 points more often "
        "(21 to 94 more).",
    ),
    # No reduction that is worth having
    (
        [arm("base", 60, 40), arm("norm", 60, 40)],
        {},
        "norm does not help: 40 of 100 failed, 40 of 100 of base; that it fails less often by 20 points or more is "
        "ruled out.",
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
        [arm("base", 10), arm("norm", 10, loss=1.5)],
        {},
        "norm harms: nothing failed; on the loss alone: 50 % higher (p < 0.001).",
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
        [arm("base", 10), arm("norm", 10, loss=0.9)],
        {"failure_judged": False},
        "norm helps: failure not judged; on the loss alone: 10 % lower (p < 0.001).",
    ),
    # Open
    (
        [arm("base", 7, 3), arm("norm", 10)],
        {"looks_planned": True},
        "norm: undecided, 0 of 10 failed, 3 of 10 of base; fewer failures, but could be luck (p = 0.058); "
        "10 more seeds an arm would most likely tell (81 % chance).",
    ),
    (
        [arm("base", 17, 3), arm("norm", 18, 2)],
        {},
        "norm: undecided, 2 of 20 failed, 3 of 20 of base; fewer failures, but could be luck (p = 0.44); base fails "
        "too seldom (15 %) for more seeds to tell.",
    ),
    (
        [arm("base", 12, 8), arm("norm", 10, 10)],
        {"smallest_effect": 0.05},
        "norm: undecided, 10 of 20 failed, 8 of 20 of base; more failures, but could be luck; more seeds will hardly "
        "help: 61 % chance at best.",
    ),
    ([arm("base", 2), arm("norm", 2)], {}, "norm: undecided, too few seeds to tell: 2 of at least 3."),
    ([arm("base", 9), arm("norm", 2)], {}, "norm: undecided, too few seeds to tell: 2 of norm of at least 3."),
    (
        [arm("base", 5, 5), [replace(t, last_step=49) for t in arm("norm", 10)]],
        {},
        "norm: undecided, base ran 99 steps, norm 49: they can't be compared.",
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
        "norm: undecided, 10 of 10 failed, 10 of 10 of base; 6 more seeds an arm would most likely tell (80 % chance).",
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
        (three(FAILS, arm("arch", 2), arm("clip", 20, loss=2.0)), None),
        "INCONCLUSIVE",
        "arch: fewer failures, lower loss and never nonfinite can't be tested in Stage A, not run in Stage B; "
        "clip: lacks loss within the margin in Stage A, not run in Stage B",
    ),
]


@pytest.mark.parametrize(("stages", "headline", "reason"), REASONS)
def test_verdict_and_its_reason(stages, headline, reason):
    verdict = verdict_of(*stages)
    assert (verdict.headline, verdict.reason) == (headline, reason)


STEPS = [
    ([arm("control", 2), arm("arch", 2)], "run 10 seeds of control and arch", "--seeds 10 --arms control,arch"),
    ([arm("control", 5, running=1), arm("arch", 5)], "wait, 1 trial still runs", None),
    (  # the forecast of the sentence, since that is no more than as many again
        [arm("control", 0, 10), arm("arch", 0, 10)],
        "run 6 more seeds of control and arch",
        "--seeds 16 --arms control,arch",
    ),
    (
        [arm("control", 5, 5), [replace(t, outcome=Outcome.INFRA_ERROR) for t in arm("arch", 10)]],
        "mend what stops arch (infra_error), then run the 10 trials of arch without an outcome again",
        "--seeds 10 --arms arch",
    ),
    (
        [arm("control", 5, 5), arm("arch", oom=2)],
        "mend what stops arch (oom), then run 10 seeds of control and arch",
        "--seeds 10 --arms control,arch --retry-oom",
    ),
    (  # seeds that do not begin with 0
        [[replace(t, seed=t.seed + 70) for t in trials] for trials in (arm("control", 2), arm("arch", 1))],
        "run 10 seeds of control and arch",
        "--seeds 70,71,72,73,74,75,76,77,78,79 --arms control,arch",
    ),
    (
        [arm("control", 10), [replace(t, seed=7) for t in arm("arch", oom=1)]],
        "mend what stops arch (oom), then run 10 seeds of control and arch",
        "--seeds 10 --arms control,arch --retry-oom",
    ),
    (
        [arm("control", 8, 12), arm("arch", 13, oom=7)],
        "run the 7 trials of arch without an outcome again",
        "--seeds 20 --arms arch --retry-oom",
    ),
]


@pytest.mark.parametrize(("arms", "text", "command"), STEPS)
def test_next_step_and_its_command(arms, text, command):
    step = verdict_of(stage("a", *arms), roles=Roles("control")).next
    assert step.text == text
    store = Source({"a": Place("my study.yaml", "mine", ("--profile", "small"))})
    expected = f"fnostab run 'my study.yaml' --experiment mine {command} --profile small"
    assert command_of(step, store) == (expected if command else "fnostab watch mine")
    assert command_of(step, Source(again="fnostab decide --table t.csv")) == "fnostab decide --table t.csv"


@pytest.mark.parametrize(
    ("arms", "roles", "text"),
    [
        ([arm("control", 10)], Roles("control"), "run another arm: there is only control"),
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


def test_stage_b_takes_the_arms_and_settings_of_stage_a():
    step = verdict_of(three(FAILS, arm("arch", 20, loss=0.8), arm("clip", 8, 12))).next
    assert step.text == "run Stage B with control and arch"
    assert command_of(step, Source({"a": Place("s", "mine")}, "deeper")) == "fnostab run deeper --from mine"
    assert command_of(step, Source({"a": Place("s")}, "deeper")) == "fnostab run deeper --arms control,arch"
    assert command_of(step, Source()) == ""
