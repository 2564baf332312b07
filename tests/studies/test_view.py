"""What the terminal shows while a study runs."""

from io import StringIO

import pytest
from rich.console import Console

from fnostab.outcomes import Outcome
from fnostab.studies import progress, view
from fnostab.studies.progress import TrialProgress
from fnostab.studies.spec import load_study
from fnostab.studies.view import StudyView

NOW = 1_800_000_000.0
TITLE = "stage_a (small profile)"


@pytest.fixture
def trials(tmp_path, monkeypatch):
    """Three arms of five seeds: every outcome once, then two under way; the rest waits."""
    monkeypatch.setattr(progress.time, "time", lambda: NOW)
    specs = load_study("stage_a", "small").trials("e", tmp_path, seeds=range(5))
    made = [TrialProgress(spec, tmp_path / f"{spec.arm}-{spec.seed}") for spec in specs]
    ended = [outcome for outcome in Outcome if outcome is not Outcome.RUNNING]
    for trial, outcome in zip(made, ended, strict=False):
        trial.outcome, trial.started_s, trial.ended_s = outcome, NOW - 300, NOW - 200
    for trial in under_way(made):
        trial.step, trial.scheduled_steps, trial.loss, trial.grad_norm = 1233, 8620, 0.0123456, 1234.5678
        trial.started_s, trial.training_since_s = NOW - 25, NOW - 20
    return made


def under_way(trials):
    return trials[8:10]


def shown(trials, *, width=80, terminal=True, trouble=None):
    """The text of a view that was updated once and then closed."""
    console = Console(file=StringIO(), width=width, force_terminal=terminal, color_system=None)
    with StudyView(TITLE, trials, 2, console) as study_view:
        study_view.update(under_way(trials), trouble)
        if terminal:
            study_view._live.refresh()  # it does so by itself twice a second
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80])
def test_the_table_fits_a_narrow_terminal_and_nothing_is_cut_off(trials, width):
    text = shown(trials, width=width, trouble="no tracking server answers")
    assert "…" not in text
    assert all(len(line) <= width for line in text.replace("\x1b[2K", "").split("\n") if "\x1b" not in line)
    for expected in (
        "opt_fix-2",
        "control-3",
        "1234/8620",
        "0.0123",
        "1.23e+03",
        "120 s",
        "no tracking server answers",
    ):
        assert expected in text


def test_an_arm_has_a_line_with_a_symbol_for_each_seed_and_its_failures(trials):
    text = shown(trials, terminal=False)
    assert [line.split() for line in text.splitlines() if line.startswith(("control ", "arch_fix ", "opt_fix "))] == [
        ["control", "●", "E", "K", "·", "·", "1/2"],  # killed takes no part
        ["arch_fix", "N", "S", "!", "·", "·", "2/2"],
        ["opt_fix", "C", "M", "·", "·", "·", "1/1"],
    ]


def test_a_legend_names_the_symbols_that_are_there(trials):
    text = shown(trials).replace("\N{NO-BREAK SPACE}", " ")
    for outcome in Outcome:
        assert f"{view.SYMBOLS[outcome][0]} {outcome}" in text
    assert "· waiting" in text
    converged = trials[:1]
    assert shown(converged, terminal=False).splitlines()[-1].strip() == "●\N{NO-BREAK SPACE}converged"


def test_every_state_has_a_symbol_of_its_own():
    states = [*Outcome, view.WAITING]
    assert len({view.SYMBOLS[state][0] for state in states}) == len(states)


def test_without_a_terminal_there_is_a_line_for_each_end_and_the_table_last(trials):
    trials[0].outcome = None  # ends later
    console = Console(file=StringIO(), width=80, force_terminal=False)
    with StudyView(TITLE, trials, 2, console) as study_view:
        study_view.update(under_way(trials), None)
        assert console.file.getvalue().count("\n") == 2  # killed and infra_error ended while it was looked at
        trials[0].outcome, trials[0].failure_step = Outcome.COLLAPSED, 77
        study_view.update(under_way(trials), None)
        study_view.update(under_way(trials), None)
    text = console.file.getvalue()
    assert text.count("control-0: collapsed at step 77, 100 s") == 1
    assert "\x1b" not in text
    assert text.index("control-0:") < text.index(TITLE)


def test_plain_progress_is_never_silent_for_long(trials, monkeypatch):
    monkeypatch.setattr(view, "LINE_EVERY_S", 0.0)
    text = shown(trials, terminal=False, trouble="no tracking server answers")
    assert "opt_fix-2 1234/8620 loss 0.0123 grad norm 1.23e+03" in text
    assert "records wait on disk: no tracking server answers" in text


def test_the_time_left_is_reckoned_from_the_trials_that_ended(trials):
    # Seven that wait or run, 100 s each less the 25 s that two have run already, two at a time
    assert "8 of 15 trials, about 5 min left" in shown(trials)
    for trial in trials[:8]:
        trial.outcome = trial.started_s = trial.ended_s = None
    assert "0 of 15 trials, about 18 min left" in shown(trials)  # from the pace of those under way


def test_a_trial_that_repeats_what_its_journal_holds_says_so(trials):
    trial = under_way(trials)[0]
    trial.step, trial.held_step = None, 499
    assert "repeats 500" in shown(trials)
    trial.training_since_s = None
    assert "starting" in shown(trials)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (90000, "25 h")]
)
def test_durations(seconds, text):
    assert view._duration(seconds) == text
