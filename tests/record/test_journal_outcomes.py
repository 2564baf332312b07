"""A trial is judged by its journal alone."""

import math

import pytest

from fnostab.record import names
from fnostab.record.attempt import last_attempt
from fnostab.record.ending import close_program_trial, judge_again
from fnostab.record.journal import Journal
from fnostab.record.journal_outcomes import judge_recorded, read_recorded
from fnostab.record.lines import FILE_NAME
from fnostab.record.outcome_rules import Bound, OutcomeRules
from fnostab.record.outcome_tags import outcome_tags
from fnostab.record.outcomes import Judgement, Outcome, outcome_payload
from fnostab.record.process_end import ProcessEnd
from fnostab.record.trial import Metric, TrialSpec

NAN = math.nan


def spec(rules=None, metric=None, judged="val/loss"):
    return TrialSpec(
        task="command",
        experiment="e",
        study="s",
        study_hash="0" * 16,
        arm="a",
        seed=0,
        settings={},
        config_hash="0" * 16,
        metric=metric or Metric(name="val/loss"),
        judged=judged,
        rules=rules or OutcomeRules(),
        shared_dir="shared",
    )


@pytest.fixture
def judged(tmp_path):
    """Judge a journal of these curves, of values by step."""

    def judge(curves, trial=None, events=()):
        with Journal(tmp_path) as journal:
            journal.event(names.TAGS_EVENT, {names.OWNER: "1@here"})
            for name, values in curves.items():
                for step, value in values.items() if isinstance(values, dict) else enumerate(values):
                    journal.record(step, {name: value})
            for name, payload in events:
                journal.event(name, payload)
        return judge_recorded(read_recorded(tmp_path), trial or spec())

    return judge


def tag(outcome, step):
    return names.TAGS_EVENT, {names.OUTCOME: outcome, names.FAILURE_STEP: str(step)}


def test_a_trial_of_which_nothing_was_observed_has_no_judgement(judged):
    assert judged({"time": [1, 2]}) == (None, {})


def test_a_falling_loss_has_converged_and_is_summed_up(judged):
    judgement, summary = judged(
        {"train/loss": [3, 2, 1, 1], "grad_norm/total": [9, 9, 1, 3], "val/loss": {1: 2.0, 2: 0.5, 3: 0.7}}
    )
    assert judgement.outcome is Outcome.CONVERGED
    assert summary == {
        "last_step": 3,
        "time_to_failure_steps": 3,
        "nan_events": 0,
        "inf_events": 0,
        "grad_norm/p99_last_half": pytest.approx(2.98),
        "grad_norm/median_last_half": 2,
        "val/loss_best": 0.5,
        "val/loss_last": 0.7,
    }


@pytest.mark.parametrize("shift", [0.0, -100.0, 1e3])
def test_adding_a_constant_to_every_loss_changes_no_outcome(judged, shift):
    training = [3.0] * 10 + [1.0] * 10 + [40.0] * 10
    validation = {4: 3.0, 14: 1.0, 24: 40.0, 29: 40.0}
    curves = {
        "train/loss": [loss + shift for loss in training],
        "val/loss": {step: loss + shift for step, loss in validation.items()},
    }
    judgement, _ = judged(curves)
    assert (judgement.outcome, judgement.failure_step) == (Outcome.EXPLODED, 24)


def test_a_negative_log_likelihood_that_falls_below_zero_has_converged(judged):
    falling = [2.0, 1.0, -1.0, -5.0, -20.0]
    assert judged({"train/loss": falling, "val/loss": falling})[0].outcome is Outcome.CONVERGED


def test_the_first_nonfinite_step_is_the_time_of_failure(judged):
    judgement, summary = judged({"train/loss": [1, NAN, NAN, math.inf], "grad_norm/total": [1, math.inf, 1, 1]})
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (Outcome.NONFINITE, 1, 0)
    assert (summary["nan_events"], summary["inf_events"], summary["time_to_failure_steps"]) == (2, 2, 1)


def test_a_validation_that_is_not_finite_is_a_failure(judged):
    judgement, summary = judged({"train/loss": [1] * 5, "val/loss": {1: 2.0, 3: NAN}})
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (Outcome.NONFINITE, 3, 1)
    assert summary["val/loss_best"] == 2.0
    assert "val/loss_last" not in summary


def test_a_validation_loss_that_is_not_finite_is_a_failure_whichever_metric_decides(judged):
    curves = {"train/loss": [1] * 5, "val/loss": {1: 2.0, 3: NAN}, "val/accuracy": {1: 0.5, 3: 0.6}}
    by_accuracy = spec(metric=Metric(name="val/accuracy", higher_is_better=True), judged="val/accuracy")
    judgement, _ = judged(curves, by_accuracy, events=[tag("nonfinite", 3)])
    assert (judgement.outcome, judgement.failure_step) == (Outcome.NONFINITE, 3)


def test_the_time_of_a_failure_announced_at_a_validation_lies_after_the_validation_before(judged):
    judgement, _ = judged({"train/loss": [1] * 5, "val/loss": {1: 2.0, 3: NAN}}, events=[tag("nonfinite", 3)])
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (Outcome.NONFINITE, 3, 1)


def test_an_announced_failure_wins_over_what_came_later(judged):
    curves = {"train/loss": [1, 0.5, NAN], "val/loss": {0: 1.0, 1: 0.5}}
    judgement, summary = judged(curves, events=[tag("collapsed", 1), tag("nonfinite", 2)])
    assert (judgement.outcome, judgement.failure_step) == (Outcome.COLLAPSED, 1)
    assert judgement.rules_held == (Outcome.NONFINITE, Outcome.COLLAPSED)
    assert summary["time_to_failure_steps"] == 1


def test_an_announcement_alone_is_an_observation(judged):
    assert judged({}, events=[tag("nonfinite", 7)])[0].failure_step == 7


@pytest.mark.parametrize(
    ("tags", "outcome"),
    [
        (outcome_tags(vars(Judgement(Outcome.STAGNATED, 1, None, (Outcome.STAGNATED,)))), Outcome.CONVERGED),
        ({names.OUTCOME: "stagnated", names.FAILURE_STEP: "1"}, Outcome.STAGNATED),
    ],
    ids=["by the rules of then", "by the script"],
)
def test_other_rules_change_a_judgement_and_no_announcement(tmp_path, tags, outcome):
    with Journal(tmp_path) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here"})
        for step, loss in enumerate([2.0, 1.0, 0.9]):
            journal.record(step, {"val/loss": loss})
        journal.event(names.TAGS_EVENT, tags)
        journal.event(names.OUTCOME_EVENT, outcome_payload(Judgement(Outcome.STAGNATED, 1)))
    judge_again(tmp_path, spec(OutcomeRules(baseline=3.0)))
    end = last_attempt(tmp_path / FILE_NAME).end
    assert end.payload["outcome"] == outcome


@pytest.mark.parametrize(("argv", "outcome"), [(None, "converged"), (("python",), "infra_error"), ((), "infra_error")])
def test_a_measure_that_rules_need_may_lack_only_where_the_task_trains_itself(tmp_path, argv, outcome):
    """The built-in task has rules about the object, which a measured scan without a truth can't be judged by."""
    with Journal(tmp_path) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here"})
        for step, loss in enumerate([2.0, 1.0, 0.9]):
            journal.record(step, {"val/loss": loss})
        journal.event(names.OUTCOME_EVENT, outcome_payload(Judgement(Outcome.STAGNATED, 1)))
    rules = OutcomeRules(stagnated={"val/details": Bound(below=0.5)})
    judge_again(tmp_path, spec(rules).model_copy(update={"argv": argv}))
    assert last_attempt(tmp_path / FILE_NAME).end.payload["outcome"] == outcome


def test_a_trial_that_could_not_be_judged_has_a_value_of_the_metric_once_it_is_judged_again(tmp_path):
    with Journal(tmp_path) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here"})
        for step, loss in enumerate([2.0, 1.0, 0.9]):
            journal.record(step, {"val/loss": loss})
        journal.event(names.OUTCOME_EVENT, outcome_payload(Judgement(Outcome.INFRA_ERROR), "it can't be judged"))
    program = spec(OutcomeRules(baseline=3.0)).model_copy(update={"argv": ("python",)})
    judge_again(tmp_path, program)
    written = (tmp_path / FILE_NAME).read_text()
    assert written.count('"val/loss_best":0.9') == 1
    assert last_attempt(tmp_path / FILE_NAME).end.payload["outcome"] == "converged"
    judge_again(tmp_path, program)
    assert (tmp_path / FILE_NAME).read_text() == written


def test_what_an_earlier_attempt_announced_is_forgotten(judged):
    again = (names.TAGS_EVENT, {names.OWNER: "2@here"})
    events = [(names.STARTED_EVENT, {"scheduled_steps": 9}), tag("collapsed", 1), again]
    judgement, _ = judged({"train/loss": [2, 1], "val/loss": [2, 1]}, events=events)
    assert judgement.outcome is Outcome.CONVERGED


def test_a_trial_worse_than_the_baseline_has_stagnated_at_its_last_scheduled_step(judged):
    rules = OutcomeRules(baseline=1.0)
    started = [(names.STARTED_EVENT, {"scheduled_steps": 50})]
    judgement, _ = judged({"val/loss": [1.2, 1.1, 1.0]}, spec(rules), started)
    assert (judgement.outcome, judgement.failure_step) == (Outcome.STAGNATED, 49)


@pytest.mark.parametrize(("losses", "of_last"), [([0.5, 0.7462], "stagnated"), ([0.8, 0.5], "converged")])
def test_a_baseline_is_compared_with_the_value_that_the_metric_takes(judged, losses, of_last):
    journal = {"val/loss": losses}
    assert judged(journal, spec(OutcomeRules(baseline=0.6931, of="last")))[0].outcome == of_last


def test_of_the_best_value_one_below_the_baseline_suffices_and_the_last_may_be_of_a_higher_metric(judged):
    higher = Metric(name="val/accuracy", higher_is_better=True, of="last")
    assert judged({"val/loss": [0.5, 0.7462]}, spec(OutcomeRules(baseline=0.6931)))[0].outcome is Outcome.CONVERGED
    trial = spec(OutcomeRules(baseline=0.5, of="last"), higher, "val/accuracy")
    assert judged({"val/accuracy": [0.7, 0.48]}, trial)[0].outcome is Outcome.STAGNATED


def test_the_loss_of_a_constant_output_in_the_journal_is_a_baseline(judged):
    curves = {"constant_output_loss": [1.0], "val/loss": [1.2, 1.1]}
    assert judged(curves)[0].outcome is Outcome.STAGNATED


def test_where_a_higher_metric_is_better_rules_and_values_are_turned(judged):
    metric = Metric(name="val/return", higher_is_better=True)
    rules = OutcomeRules(failed=Bound(below=-600.0), baseline=-700.0)
    trial = spec(rules, metric, "val/return")
    judgement, summary = judged({"train/loss": [1, 2, 3], "val/return": [-900.0, -500.0, -550.0]}, trial)
    assert judgement.outcome is Outcome.CONVERGED
    assert (summary["val/return_best"], summary["val/return_last"]) == (-500.0, -550.0)
    judgement, _ = judged({"val/return": {3: -650.0}}, trial)
    assert (judgement.outcome, judgement.failure_step) == (Outcome.STAGNATED, 3)


def test_measures_at_the_same_steps_are_judged(judged):
    rules = OutcomeRules(collapsed={"val/spread": Bound(below=0.1)})
    curves = {"val/loss": [3, 2, 1], "val/spread": [1.0, 0.05, 0.01]}
    judgement, _ = judged(curves, spec(rules))
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (Outcome.COLLAPSED, 1, 0)


@pytest.mark.parametrize(
    ("spread", "failed_at", "good_at"),
    [
        ({9: 1.0, 19: 0.05}, 19, 9),  # not taken at the last validation
        ({9: 1.0, 30: 0.05}, 29, 19),  # taken a step after it
        ({5: 1.0, 15: 0.05, 25: 0.05}, 19, 9),  # never at one
        ({29: 0.05}, 29, 19),  # at the end alone
    ],
)
@pytest.mark.parametrize("outcome", ["collapsed", "stagnated"])
def test_a_measure_that_is_taken_at_other_steps_than_the_loss_is_judged(judged, spread, failed_at, good_at, outcome):
    rules = OutcomeRules(**{outcome: {"val/spread": Bound(below=0.1)}})
    judgement, _ = judged({"val/loss": {9: 3.0, 19: 2.0, 29: 1.0}, "val/spread": spread}, spec(rules))
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (outcome, failed_at, good_at)


def test_a_measure_that_has_recovered_by_its_last_value_is_no_failure(judged):
    rules = OutcomeRules(collapsed={"val/spread": Bound(below=0.1)})
    curves = {"val/loss": {9: 3.0, 19: 2.0, 29: 1.0}, "val/spread": {9: 0.05, 19: 1.0}}
    assert judged(curves, spec(rules))[0].outcome is Outcome.CONVERGED


@pytest.mark.parametrize(
    ("spread", "found"),
    [
        ({9: 1.0, 29: 0.05}, (Outcome.CONVERGED, None, None)),  # once, though it is the newest at three validations
        ({9: 1.0, 19: 0.05, 39: 0.05}, (Outcome.COLLAPSED, 39, 9)),
    ],
)
def test_values_in_a_row_are_those_that_were_taken(judged, spread, found):
    rules = OutcomeRules(collapsed={"val/spread": Bound(below=0.1, validations=2)})
    loss = {step: 3.0 - step / 20 for step in range(9, 50, 10)}
    judgement, _ = judged({"val/loss": loss, "val/spread": spread}, spec(rules))
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == found


def test_a_rule_may_be_about_the_metric_itself(judged):
    rules = OutcomeRules(stagnated={"val/loss": Bound(above=2.0)})
    judgement, _ = judged({"val/loss": [1.0, 3.0, 3.0]}, spec(rules))
    assert (judgement.outcome, judgement.failure_step) == (Outcome.STAGNATED, 1)


def test_without_a_validation_the_training_loss_is_judged_and_that_is_said(judged):
    falling = [math.exp(-step / 50) for step in range(200)]
    judgement, _ = judged({"train/loss": falling})
    assert judgement.outcome is Outcome.CONVERGED
    assert judgement.not_judged[-2:] == (
        "exploded: on medians of train/loss, no val/loss was recorded",
        "stagnated: no val/loss was recorded",
    )


def test_without_a_validation_a_training_loss_that_ends_far_above_its_start_has_exploded(judged):
    risen = [math.exp(-step / 50) for step in range(100)] + [100.0] * 100
    assert judged({"train/loss": risen})[0].outcome is Outcome.EXPLODED


@pytest.mark.parametrize("validations", [{199: 100.0}, {99: 0.1, 199: 100.0}])
def test_with_too_few_validations_the_training_loss_tells_whether_it_exploded(judged, validations):
    risen = [math.exp(-step / 50) for step in range(100)] + [100.0] * 100
    judgement, _ = judged({"train/loss": risen, "val/loss": validations})
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (Outcome.EXPLODED, 109, 99)
    assert "exploded: on medians of train/loss, fewer than three val/loss were recorded" in judgement.not_judged


def test_a_study_that_names_the_baseline_still_has_stagnation_beside_it(judged):
    risen = [math.exp(-step / 50) for step in range(100)] + [100.0] * 100
    judgement, _ = judged({"train/loss": risen, "val/loss": {199: 100.0}}, spec(OutcomeRules(baseline=1.0)))
    assert judgement.rules_held == (Outcome.EXPLODED, Outcome.STAGNATED)


def test_a_spike_that_is_over_is_no_explosion(judged):
    spiky = [1 / (step + 1) for step in range(100)]
    spiky[50] = 1e6
    assert judged({"train/loss": spiky})[0].outcome is Outcome.CONVERGED


RISES = [0.5 * 10.0**k for k in range(1, 5)]
FALLS = [1.0 + math.exp(-step / 50) for step in range(200)]


@pytest.mark.parametrize("shift", [0.0, -100.0])
@pytest.mark.parametrize("higher", [False, True])
@pytest.mark.parametrize("validated", [(), (99,), (49, 99, 149, 199)])
def test_a_training_that_ends_while_its_loss_explodes_has_exploded(judged, validated, higher, shift):
    training = [loss + shift for loss in FALLS + RISES]
    metric = Metric(name="val/accuracy" if higher else "val/loss", higher_is_better=higher)
    curves = {"train/loss": training, metric.name: {step: 0.9 if higher else training[step] for step in validated}}
    judgement, _ = judged(curves, spec(metric=metric, judged=metric.name))
    assert (judgement.outcome, judgement.failure_step, judgement.known_good_step) == (Outcome.EXPLODED, 200, 199)
    assert not any(line.startswith("exploded:") for line in judgement.not_judged)


@pytest.mark.parametrize(
    ("training", "validations"),
    [
        (FALLS + RISES, {203: 1.1}),  # and what came of it is fine
        (FALLS + RISES[-1:], {}),  # one batch
        ([*FALLS, RISES[-1], 1.1, RISES[0], RISES[0]], {}),  # no more than it recovered from before
        ([1e4, *FALLS, *RISES], {}),  # no higher than it began
    ],
)
def test_a_high_loss_at_the_end_is_no_explosion_unless_it_lasts_and_nothing_speaks_against_it(
    judged, training, validations
):
    assert judged({"train/loss": training, "val/loss": validations})[0].outcome is Outcome.CONVERGED


@pytest.mark.parametrize(
    ("scheduled", "last", "validations", "outcome"),
    [
        (400, RISES[-1], {}, Outcome.EXPLODED),
        (400, RISES[-1], {200: 1.1}, Outcome.CONVERGED),  # early stopping: what came of it is fine
        (400, 1.1, {}, Outcome.CONVERGED),
        (201, RISES[-1], {}, Outcome.CONVERGED),  # it ends as scheduled: one batch
    ],
)
def test_one_high_loss_is_an_explosion_where_the_training_stopped_at_it(judged, scheduled, last, validations, outcome):
    started = names.STARTED_EVENT, {"scheduled_steps": scheduled}
    judgement, _ = judged({"train/loss": [*FALLS, last], "val/loss": validations}, events=[started])
    assert (judgement.outcome, judgement.failure_step) == (outcome, 200 if outcome is Outcome.EXPLODED else None)


@pytest.mark.parametrize(
    ("steps", "validated", "said"),
    [
        (400, [0, 1, 2, 3], "its validations are numbered 0 to 3, its steps to 399, "),
        (400, [1, 2, 3, 4], "its validations are numbered 1 to 4, its steps to 399, "),
        (4, [0, 1, 2, 3], None),  # the script counts its steps in epochs too
        (400, [0, 100, 200, 300], None),
        (400, [398, 399], None),
        (400, [0], None),
    ],
)
def test_validations_that_are_numbered_by_epochs_are_pointed_out(tmp_path, steps, validated, said):
    with Journal(tmp_path) as journal:
        for step in range(steps):
            journal.record(step, {"train/loss": math.exp(-step / 50)})
        for step in validated:
            journal.record(step, {"val/loss": 1 / (1 + step)})
        close_program_trial(journal, spec().model_copy(update={"argv": ("python", "train.py")}), ProcessEnd(0))
    end = last_attempt(tmp_path / FILE_NAME).end.payload
    assert end["outcome"] == Outcome.CONVERGED
    assert (end["reason"] or "")[: len(said or " ")] == (said or "")


def test_what_was_recorded_of_steps_is_read_back(judged, tmp_path):
    judged({"train/loss": {0: 1.0, 7: NAN}}, events=[(names.STARTED_EVENT, {"scheduled_steps": 8})])
    recorded = read_recorded(tmp_path)
    assert (recorded.last_step, recorded.reached_the_end, recorded.first_nonfinite_step) == (7, True, 7)
