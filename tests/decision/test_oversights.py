"""Lines on a study that is probably asked in the wrong way."""

from types import SimpleNamespace

import pytest

from fnostab.decision.oversights import all_failed_alike, lacks_metric
from fnostab.record.missing_metric import metric_not_recorded
from fnostab.record.outcome_rules import Bound, OutcomeRules
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.record.trial import Metric


def rows(*outcomes, loss=None):
    return [TrialRow(f"arm{i % 2}", i // 2, Outcome(outcome), loss=loss) for i, outcome in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("trials", "lacking"),
    [
        (rows("converged", "converged"), True),
        (rows("converged", "converged", loss=0.1), False),
        ([*rows("converged"), *rows("converged", loss=0.1)], False),
        (rows("nonfinite", "nonfinite"), False),  # perhaps before the first validation
        (rows("infra_error", "killed"), False),
        ([], False),
    ],
)
def test_a_metric_is_lacking_if_no_trial_that_could_have_it_has_it(trials, lacking):
    assert lacks_metric(trials) is lacking


def test_a_metric_that_nobody_recorded_is_named_with_what_was():
    said = metric_not_recorded("val/lss", ["train/loss", "val/loss", "last_step"])
    assert said == "no trial recorded val/lss; recorded: val/loss (did you mean 'val/loss'?)"
    said = metric_not_recorded("val/loss", ["train/loss", "nan_events"])
    assert said.startswith(
        "no trial recorded val/loss; recorded: train/loss; rec.validation(i, loss=...), or a monitor "
    )


def study(rules, judged="val/loss"):
    return SimpleNamespace(rules=rules, judged={"arm0": judged}, metric=Metric(name="val/loss"))


@pytest.mark.parametrize(
    ("outcome", "rules", "check"),
    [
        ("stagnated", OutcomeRules(baseline=0.0001), "baseline 0.0001 and higher_is_better"),
        ("stagnated", OutcomeRules(failed=Bound(above=0.5)), "failed above 0.5 and higher_is_better"),
        ("collapsed", OutcomeRules(collapsed={"val/s": Bound(below=9.0)}), "val/s below 9.0 of collapsed"),
        ("exploded", OutcomeRules(), "higher_is_better"),
    ],
)
def test_if_everything_fails_by_one_rule_the_rule_is_to_be_checked(outcome, rules, check):
    trials = [*rows(outcome, outcome, outcome), *rows("killed")]
    assert all_failed_alike(trials, study(rules)) == f"all trials of all arms are {outcome}: check {check}"


@pytest.mark.parametrize("outcomes", [["stagnated"], ["stagnated", "converged"], ["nonfinite"] * 3, ["converged"] * 3])
def test_else_nothing_is_said(outcomes):
    assert all_failed_alike(rows(*outcomes), study(OutcomeRules(baseline=1.0))) is None
    assert all_failed_alike(rows("exploded", "exploded"), study(OutcomeRules(), judged="val/val_loss")) is None
