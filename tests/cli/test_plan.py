"""``fnostab plan``: seeds before the study."""

import json
import math

import pytest

from fnostab.stats.design import boschloo_power, seeds_for_loss_ratio
from fnostab.stats.sequential import sequential_alpha, sequential_error_and_power


@pytest.fixture
def plan(call):
    def run(*arguments):
        code, out, err = call("plan", *arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


@pytest.mark.parametrize(("candidates", "seeds"), [("1", 18), ("2", 21)])
def test_a_failure_in_three_against_none(plan, candidates, seeds):
    answer = plan("--control-rate", "0.3", "--arm-rate", "0", "--power", "0.8", "--candidates", candidates)
    assert answer["seeds"] == seeds
    assert answer["power_at_seeds"] == pytest.approx(boschloo_power(0.3, 0, seeds, 0.05 / int(candidates)))
    (row,) = [row for row in answer["table"] if row["control_rate"] == 0.3]
    assert row["seeds"]["0.8"] == seeds
    assert row["seeds"]["0.7"] < seeds < row["seeds"]["0.9"]


def test_a_dip_of_the_saw_tooth_is_named(plan, call):
    for rate in ("0.4", "0.5", "0.35", "0.45"):
        answer = plan("--control-rate", rate, "--power", "0.75")
        n = answer["seeds"]
        assert answer["dips"] == [m for m in range(n + 1, n + 11) if boschloo_power(float(rate), 0, m) < 0.75]
    assert "saw-tooth" in call("plan")[1]


def test_losses(plan):
    answer = plan("--log-sd", "0.3", "--ratio", "0.8", "--margin", "0")
    successful = seeds_for_loss_ratio(0.3, 0.8)
    assert answer["losses"]["successful_seeds"] == successful
    assert answer["losses"]["seeds"] == math.ceil(successful / 0.7)
    assert plan("--log-sd", "0.3")["losses"]["successful_seeds"] == seeds_for_loss_ratio(0.3, 1.0, margin=1.1)
    assert plan("--log-sd", "0.3", "--ratio", "1.2")["losses"]["successful_seeds"] is None


def test_looks(plan):
    found = plan("--looks", "10,20")["sequential"]
    alpha = sequential_alpha([10, 20])
    design = sequential_error_and_power([10, 20], alpha, 0.3, 0.0, futility=True)
    assert found["alpha_at_look"] == alpha
    assert (found["error"], found["power"]) == (design.error, design.power)
    assert found["error"] <= 0.05
    two = plan("--looks", "10,20", "--candidates", "2")["sequential"]
    assert two["error"] <= 0.025


def test_in_words(call):
    code, out, _ = call("plan", "--looks", "10,20", "--log-sd", "0.3")
    text = " ".join(out.split())
    assert code == 0
    assert text.startswith("18 seeds per arm show a failure rate of 0 where control's is 0.3 with power 0.835")
    assert "successful trials per arm show a loss at most 10 % above control's" in text
    assert "looks after 10, 20 seeds per arm, each at alpha 0.03115 before Holm" in text


def test_one_seed_is_written_in_the_singular(call):
    _, out, _ = call("plan", "--looks", "1", "--alpha", "0.5", "--control-rate", "1")
    text = " ".join(out.split())
    assert "looks after 1 seed per arm" in text
    assert "at 1 seed;" in text


def test_what_no_number_of_seeds_shows(call):
    assert "no number of seeds" in call("plan", "--control-rate", "0.2", "--arm-rate", "0.3")[1]
    assert "more than 200 seeds" in call("plan", "--control-rate", "0.31", "--arm-rate", "0.3")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--control-rate", "1.5"], "control_rate 1.5: expected a failure rate from 0 to 1"),
        (["--power", "1"], "power 1.0: expected a number between 0 and 1"),
        (["--candidates", "0"], "candidates 0: expected at least 1"),
        (["--looks", "20,10"], "looks='20,10' is not accepted"),
        (["--looks", "ten"], "looks='ten' is not accepted"),
        (["--log-sd", "0"], "log_sd 0.0: expected a finite number above 0"),
    ],
)
def test_what_is_out_of_range_is_one_line(call, arguments, message):
    code, out, err = call("plan", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ratio", "0.8"), "--ratio and --margin are about losses: give their spread as well, as in --log-sd 0.3"),
        (("--margin", "1"), "--ratio and --margin are about losses"),
        (("--looks", "5,5000"), "the exact error is computed up to 200 seeds per arm: look earlier, or once"),
    ],
)
def test_what_would_be_left_out_in_silence_or_never_end_is_refused(call, arguments, said):
    code, _, err = call("plan", *arguments)
    assert code == 2
    assert said in " ".join(err.split())
