"""The terminal's view of a study."""

import re
from io import StringIO

import pytest
from rich.console import Console

from fnostab.record import progress
from fnostab.record.norm_curve import BARS, NONFINITE
from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialState
from fnostab.show import rendering, view
from fnostab.show.state import StudyState
from fnostab.show.view import Display, snapshot
from fnostab.study.study import load_study

NOW = 1_800_000_000.0
TITLE = "stage_a (small profile)"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def trials(tmp_path, monkeypatch):
    """Three arms of five seeds: every outcome once, then two under way; the rest waits."""
    monkeypatch.setattr(progress.time, "time", lambda: NOW)
    arms = ["control", "arch_fix", "opt_fix"]
    made = load_study("stage_a", "small").trials("e", tmp_path, arms=arms, seeds=range(5))
    ended = [outcome for outcome in Outcome if outcome is not Outcome.RUNNING]
    for trial, outcome in zip(made, ended, strict=False):
        trial.outcome, trial.started_s, trial.ended_s = outcome, NOW - 300, NOW - 200
    for trial in under_way(made):
        trial.step, trial.scheduled_steps, trial.loss, trial.grad_norm = 1233, 8620, 0.0123456, 1234.5678
        trial.started_s, trial.training_since_s = NOW - 25, NOW - 20
        for step in range(1234):
            trial.curve.add(float("nan") if step == 600 else 1e3 if step == 900 else 1.0, step)
    return made


def under_way(trials):
    return trials[8:10]


def state_of(trials, running, trouble=None):
    for trial in trials:
        trial.running = any(trial is each for each in running)
    return StudyState(TITLE, trials, 2, trouble=trouble)


def shown(trials, *, width=80, terminal=True, trouble=None, running=None):
    """The text of a view that was updated once and then closed."""
    console = Console(file=StringIO(), width=width, height=40, force_terminal=terminal, color_system=None)
    with Display(console, {trial.name for trial in trials if trial.finished}) as display:
        display.update(state_of(trials, under_way(trials) if running is None else running, trouble))
        if display._live is not None:
            display._live.refresh()  # it does so by itself twice a second
        state_of(trials, [])
    return console.file.getvalue()


def plain(text):
    return ESCAPES.sub("", text)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_table_fits_the_terminal_and_nothing_is_cut_off(trials, width):
    text = shown(trials, width=width, trouble="no tracking server answers")
    lines = plain(text).replace("\r", "\n").split("\n")
    assert "…" not in text
    assert max(map(len, lines)) <= width
    for expected in ("opt_fix-2", "control-3", "1234/8620", "0.0123", "1.23e+03", "no tracking server answers"):
        assert expected in text
    (heading,) = {line.strip() for line in lines if line.startswith("trial ")}
    assert ("spikes" in heading, "time left" in heading) == (width >= 80, width >= 80)
    (row,) = {line for line in lines if line.startswith("opt_fix-2 ")}
    assert row.count(NONFINITE) == row.count(BARS[-1]) == 1  # of 1234 steps


@pytest.mark.parametrize("width", [30, 40])
def test_a_tiny_terminal_drops_columns_by_priority(trials, width):
    lines = plain(shown(trials, width=width, terminal=True)).replace("\r", "\n").split("\n")
    assert any(line.startswith("opt_fix-2") for line in lines)
    assert sum("1234/8620" in line for line in lines) >= 2
    assert max(map(len, lines)) <= width


def test_an_arm_has_a_line_with_a_symbol_for_each_seed_and_its_failures(trials):
    text = shown(trials, terminal=False)
    assert [line.split() for line in text.splitlines() if line.startswith(("control ", "arch_fix ", "opt_fix "))] == [
        ["control", "●", "E", "K", "·", "·", "1/2", "50%", "[9%,", "91%]"],  # killed takes no part
        ["arch_fix", "N", "S", "!", "·", "·", "2/2", "100%", "[34%,", "100%]"],
        ["opt_fix", "C", "M", "·", "·", "·", "1/1", "100%", "[21%,", "100%]"],
    ]


def test_the_failure_rate_gives_way_to_the_seeds(trials):
    assert "rate [95 %]" in shown(trials, terminal=False, width=60)
    assert "rate [95 %]" not in shown(trials, terminal=False, width=40)


def test_more_seeds_than_a_line_holds_are_wrapped_and_very_many_are_counted():
    def drawn(n_seeds):
        console = Console(file=StringIO(), width=60, color_system=None)
        ended = [TrialState("control", seed, Outcome.CONVERGED) for seed in range(n_seeds)]
        snapshot(StudyState(TITLE, [*ended, TrialState("control", n_seeds, Outcome.COLLAPSED)], 1), console)
        return console.file.getvalue()

    assert drawn(40).count("●") == 41  # one in the legend
    assert max(map(len, drawn(40).splitlines())) <= 60
    assert "3000 ●  1 C" in drawn(3000)


def test_a_legend_names_the_symbols_that_are_there(trials):
    text = shown(trials, terminal=False).replace("\N{NO-BREAK SPACE}", " ")
    for outcome in Outcome:
        assert outcome is Outcome.RUNNING or f"{rendering.SYMBOLS[outcome][0]} {outcome}" in text
    assert "· waiting" in text
    assert "▸ running" in shown(trials).replace("\N{NO-BREAK SPACE}", " ")
    converged = trials[:1]
    assert shown(converged, terminal=False).splitlines()[-1].strip() == "●\N{NO-BREAK SPACE}converged"


def test_every_state_has_a_symbol_of_its_own():
    states = [*Outcome, rendering.WAITING]
    assert len({rendering.SYMBOLS[state][0] for state in states}) == len(states)


def test_without_a_terminal_there_is_a_line_for_each_end_and_the_table_last(trials):
    trials[0].outcome = None  # ends later
    console = Console(file=StringIO(), width=80, force_terminal=False)
    with Display(console, {trial.name for trial in trials if trial.finished}) as display:
        display.update(state_of(trials, under_way(trials)))
        assert console.file.getvalue().count("\n") == 2  # killed and infra_error ended while it was looked at
        trials[0].outcome, trials[0].failure_step = Outcome.COLLAPSED, 77
        display.update(state_of(trials, under_way(trials)))
        display.update(state_of(trials, under_way(trials)))
    text = console.file.getvalue()
    assert text.count("control-0: collapsed at step 77, 100 s") == 1
    assert "\x1b" not in text
    assert text.index("control-0:") < text.index(TITLE)


def test_a_trial_that_is_tried_again_is_reported_again(trials):
    console = Console(file=StringIO(), width=80, force_terminal=False)
    with Display(console, {"control-0"}) as display:
        for outcome in (Outcome.KILLED, None, Outcome.CONVERGED):
            display.update(StudyState(TITLE, [TrialState("control", 0, outcome)], 1))
    assert "control-0: converged" in console.file.getvalue()
    assert "control-0: killed" not in console.file.getvalue()


def test_plain_progress_is_never_silent_for_long(trials, monkeypatch):
    monkeypatch.setattr(view, "LINE_EVERY_S", 0.0)
    text = shown(trials, terminal=False, trouble="no tracking server answers")
    assert "opt_fix-2 1234/8620 loss 0.0123 grad norm 1.23e+03" in text
    assert "no tracking server answers" in text


def test_many_trials_under_way_do_not_fill_the_screen():
    trials = [TrialState("control", seed, running=True, step=1) for seed in range(100)]
    console = Console(file=StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    with Display(console) as display:
        display.update(StudyState(TITLE, trials, 100))
        display._live.refresh()
    assert "and 85 more running" in console.file.getvalue()
    plain_console = Console(file=StringIO(), width=80)
    with Display(plain_console) as display:
        display.update(StudyState(TITLE, trials, 100))
    assert "and 96 more" in plain_console.file.getvalue()


def test_a_terminal_that_can_draw_nothing_gets_lines(trials, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown(trials)
    trials[6].outcome = trials[7].outcome = Outcome.CONVERGED
    for trial in trials:
        trial.outcome = trial.outcome if trial.finished else None
    assert "control-3 1234/8620" in shown(trials)


def test_without_colour_the_picture_has_none_and_says_the_same(trials, monkeypatch):
    def drawn():
        console = Console(file=StringIO(), width=80, force_terminal=True, color_system="truecolor")
        states = [TrialState("a", 0, Outcome.NONFINITE, failure_step=3, ended_s=NOW), TrialState("a", 1, running=True)]
        snapshot(StudyState(TITLE, states, 1, trouble="away"), console)
        return console.file.getvalue()

    coloured = drawn()
    monkeypatch.setenv("NO_COLOR", "1")
    bare = drawn()
    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", coloured)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", bare)
    assert plain(coloured) == plain(bare)


def test_what_ended_last_is_listed_below_what_runs(trials):
    trials[2].ended_s, trials[2].failure_step, trials[2].reason = NOW - 1, 42, None
    text = plain(shown(trials))
    assert text.index("control-3 ") < text.index("opt_fix-0 ")
    assert f"{trials[2].outcome} @42" in text


def test_the_time_left_is_reckoned_from_the_trials_that_ended_and_the_pace_of_those_under_way(trials):
    # Five that wait, 100 s each, and two that need 20 s x 7386 / 1234 = 120 s more, two at a time
    assert "8 of 15 trials, about 6 min left" in shown(trials)
    for trial in trials[:8]:
        trial.outcome = trial.started_s = trial.ended_s = None
    assert "0 of 15 trials, about 18 min left" in shown(trials)  # from the pace of those under way


def test_the_study_does_not_end_before_its_slowest_trial(trials):
    ended = TrialState("control", 0, Outcome.COLLAPSED, started_s=NOW - 300, ended_s=NOW - 290)
    slow, fast = under_way(trials)
    slow.running = fast.running = True
    slow.training_since_s, fast.training_since_s = NOW - 200, NOW - 2
    assert slow.seconds_left == pytest.approx(1197, abs=1)
    assert StudyState(TITLE, [ended, slow, fast], 2).seconds_left() == slow.seconds_left


def test_a_stopped_study_has_no_time_left(trials):
    assert rendering.summary(StudyState(TITLE, trials, 2)) == "8 of 15 trials"


def test_a_trial_that_repeats_what_its_journal_holds_says_so(trials):
    trial = under_way(trials)[0]
    trial.step, trial.held_step = None, 499
    assert "repeats 500" in shown(trials)
    trial.training_since_s = None
    assert "starting, 25 s" in shown(trials)


def test_a_trial_whose_last_step_is_done_is_being_evaluated(trials):
    trial = under_way(trials)[0]
    trial.step = trial.scheduled_steps - 1
    assert "evaluating" in shown(trials)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (90000, "25 h")]
)
def test_durations(seconds, text):
    assert rendering.duration(seconds) == text
