"""Progress read from a journal while it grows."""

import pytest

from fnostab.record import names
from fnostab.record.attempt import is_being_written
from fnostab.record.journal import Journal
from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialProgress
from fnostab.study.study import load_study


@pytest.fixture
def trial(tmp_path):
    (made,) = load_study("stage_a", "small").trials("e", tmp_path, arms=["opt_fix"], seeds=[4])
    return made


def attempt(journal, steps, outcome=None, requested=False):
    journal.event(names.PARAMS_EVENT, {})
    journal.event(names.STARTED_EVENT, {"scheduled_steps": 40})
    for step in range(steps):
        journal.record(step, {names.TRAIN_LOSS: 0.5, names.GRAD_NORM: 2.0})
    if outcome:
        payload = {"outcome": outcome, "reason": "why", "failure_step": None}
        journal.event(names.OUTCOME_EVENT, payload | ({"requested": True} if requested else {}))


def test_a_trial_that_never_started_has_nothing_to_say(trial):
    trial.update()
    assert (trial.name, trial.outcome, trial.step, trial.seconds, trial.seconds_left) == (
        "opt_fix-4",
        None,
        None,
        None,
        None,
    )
    assert not is_being_written(trial.directory)


def test_an_outcome_that_was_not_judged_is_none(trial):
    with Journal(trial.directory) as journal:
        attempt(journal, 3)
        journal.event(names.OUTCOME_EVENT, {"outcome": None, "reason": "not judged"})
    trial.update()
    assert (trial.outcome, trial.reason, trial.step) == (None, "not judged", 2)


def test_step_loss_and_gradient_norm_follow_the_journal(trial):
    with Journal(trial.directory) as journal:
        attempt(journal, 10)
        trial.update()
        assert (trial.step, trial.scheduled_steps, trial.loss, trial.grad_norm) == (9, 40, 0.5, 2.0)
        trial.running = True
        assert trial.seconds_left >= 0
        assert is_being_written(trial.directory)
        journal.record(10, {names.TRAIN_LOSS: float("nan"), names.GRAD_NORM: float("inf")})
        trial.update()
        assert (trial.step, trial.loss) == (10, None)
    assert not is_being_written(trial.directory)


@pytest.mark.parametrize(
    ("outcome", "finished", "excluded"),
    [
        ("converged", True, False),
        ("collapsed", True, False),
        ("oom", True, True),
        ("killed", False, True),
        ("infra_error", False, True),
    ],
)
def test_only_killed_and_infra_error_are_tried_again(trial, outcome, finished, excluded):
    with Journal(trial.directory) as journal:
        attempt(journal, 3, outcome)
    trial.update()
    assert (trial.outcome, trial.finished, trial.excluded) == (Outcome(outcome), finished, excluded)
    assert (trial.reason, trial.seconds_left) == ("why", None)


def test_a_new_attempt_forgets_the_end_of_the_last_one_but_not_how_far_it_came(trial):
    with Journal(trial.directory) as journal:
        attempt(journal, 10, "killed")
        attempt(journal, 4)  # records nothing: the journal holds these steps
        trial.update()
        assert (trial.outcome, trial.reason, trial.step, trial.held_step) == (None, None, None, 9)
        journal.record(10, {names.GRAD_NORM: 1.0})
        trial.update()
        assert trial.step == 10


@pytest.mark.parametrize(
    ("attempts", "fruitless"),
    [
        ([(3, "killed")], 0),
        ([(0, "infra_error")] * 3, 3),
        ([(5, "killed"), (5, "killed"), (2, "infra_error")], 2),  # they came by steps that the journal holds
        ([(0, "killed"), (0, "killed"), (1, "killed")], 0),
        ([(0, "killed"), (0, "killed", True), (0, "killed")], 2),
        ([(0, "killed", True)] * 4, 0),
        ([(0, None), (0, None), (0, "killed")], 3),  # cut off without an outcome
        ([(2, None), (2, None)], 0),  # the last one goes on
        ([(2, None), (2, None), (2, None)], 1),
        ([(0, "oom"), (0, "killed")], 1),
    ],
)
def test_attempts_in_a_row_that_came_no_further_are_counted(trial, attempts, fruitless):
    with Journal(trial.directory) as journal:
        for each in attempts:
            attempt(journal, *each)
            trial.update()
    assert trial.fruitless == fruitless
    again = TrialProgress(trial.spec, trial.directory)  # after a restart
    again.update()
    assert again.fruitless == fruitless
