"""``fnostab run --from``: which arms an earlier verdict lets go on, and what is refused."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from fnostab.cli.execution import RunOptions, load_after
from fnostab.cli.options import parse_settings
from fnostab.record import names
from fnostab.study.study import load_study
from fnostab.tracking import find_experiment, log_verdict, newest_study, newest_verdict, open_store
from fnostab.tracking.read.histories import read_artifact

WON = {"control": 2, "arch_fix": 3, "opt_fix": 0}  # SILVER
FROM = ("run", "stage_b", "--from", "stage_a", "--seeds", "1", "--jobs", "1")


@pytest.fixture
def store(workplace):
    return open_store(None)


def decided(store, call, *more, experiment="stage_a"):
    status, out, err = call("decide", "--experiment", experiment, *more)
    assert status == 0, err
    return newest_verdict(store, find_experiment(store, experiment)), out


def assert_refused(answer, pattern):
    status, _, err = answer
    assert (status, err.count("\n")) == (2, 1), err
    assert re.search(pattern, err), err


def test_the_winner_and_control_go_deep_with_their_settings(store, call, record_study):
    record_study(store, "stage_a", WON, **{"training.learning_rate": 0.002, "training.epochs": 1})
    verdict, _ = decided(store, call)
    record_study(store, "stage_a", {"control": 0}, **{"training.learning_rate": 0.3})  # newer, and not what was judged
    printed = io.StringIO()
    options = RunOptions(study="stage_b", output=Path("outputs"), from_experiment="stage_a")
    study, arms = load_after(options, Console(file=printed, width=200))
    assert arms == ["control", "opt_fix"]
    assert f"arms control, opt_fix of stage_a, by its verdict SILVER (run {verdict.run_id})" in printed.getvalue()
    settings = study.arms["opt_fix"]
    assert (settings["training.learning_rate"], settings["model.fno_blocks"]) == (0.002, 6)
    assert list(study.arms) == ["control", "arch_fix", "opt_fix", "cure"]  # so that more can follow in the same study


def test_looks_at_a_study_under_way_are_no_verdicts(store, call, record_study):
    run = record_study(store, "stage_a", WON)
    verdict, _ = decided(store, call)
    experiment = find_experiment(store, "stage_a")
    log_verdict(store, experiment, [run], "look 1 of 2 (3 seeds)", {"look": 1}, "open")
    assert newest_verdict(store, experiment) == verdict


class TestRefused:
    def test_no_experiment_no_verdict_a_table(self, store, call, record_study):
        assert_refused(call(*FROM), r"no experiment 'stage_a' in ")
        record_study(store, "stage_a", WON)
        assert_refused(call(*FROM), r"experiment 'stage_a' in .* has no verdict: `fnostab decide --experiment stage_a`")
        assert_refused(call("run", "stage_b", "--from", "trials.csv"), r"a file holds no settings to continue with")
        assert_refused(call(*FROM, "--sequential", "3,5"), r"leave out --from")
        assert not store.client.get_experiment_by_name("stage_b")

    @pytest.mark.parametrize(
        ("failures", "deep", "pattern"),
        [
            (WON | {"arch_fix": "oom"}, None, r"verdict, INCONCLUSIVE \(run \w+\), asks for no deep test; its next st"),
            (
                WON | {"opt_fix": 2},
                {"control": 1, "arch_fix": 3, "opt_fix": 2},
                r"PIVOT.*asks for no deep test; its next step: try a setting or an arm where",
            ),
        ],
    )
    def test_a_verdict_that_asks_for_something_else(self, store, call, record_study, failures, deep, pattern):
        record_study(store, "stage_a", failures, loss={"arch_fix": 0.05, "control": 0.03, "opt_fix": 0.03})
        if deep:
            record_study(store, "deep", deep, study="stage_b")
        decided(store, call, *(("--deep-experiment", "deep") if deep else ()))
        assert_refused(call(*FROM), pattern)

    def test_another_schema_or_damage(self, store, call, record_study):
        record_study(store, "stage_a", WON)
        verdict, _ = decided(store, call)
        whole = json.loads(read_artifact(store, verdict.run_id, "verdict.json"))
        for damaged in ("{", json.dumps(whole | {"stage_b": "control"}), json.dumps(whole | {"study_runs": {}})):
            store.client.log_text(verdict.run_id, damaged, "verdict.json")
            assert_refused(
                call(*FROM), r"verdict.json of the verdict's run \w+ is damaged or of an older version, in '"
            )
        store.client.log_text(verdict.run_id, json.dumps(whole), "verdict.json")
        store.client.set_tag(verdict.run_id, names.SCHEMA_TAG, "0")
        assert_refused(call(*FROM), r"run \w+ was recorded with schema '0', this version of fnostab reads '1'")

    def test_a_depth_that_is_none(self, store, call, record_study):
        record_study(store, "stage_a", WON)
        decided(store, call)
        assert_refused(call(*FROM, "--set", "model.fno_blocks=3"), r"model.fno_blocks=3 is not deeper than arm control")
        assert_refused(call(*FROM, "--profile", "full"), r"was run with the small profile")


class TestCrashHunt:
    def test_it_names_the_lowest_depth_that_fails_and_where_to_run_the_shootout(self, store, call, record_study):
        failures = {"depth_4": 0, "depth_6": 1, "depth_8": "oom"}
        record_study(store, "crash_hunt", failures, study="crash_hunt", **{"training.learning_rate": 0.002})
        status, out, _ = call("decide", "--experiment", "crash_hunt")
        assert status == 0
        assert re.search(r"^4 +depth_4 +0/3 +0%-56%", out, re.MULTILINE)
        assert re.search(r"^6 +depth_6 +1/3 +6%-79%", out, re.MULTILINE)
        assert re.search(r"^8 +depth_8 +- +- +- +3 oom", out, re.MULTILINE)
        assert "depth_8: 3 oom (seeds 0, 1, 2)" in out
        said = " ".join(out.split())
        assert "training begins to fail at model.fno_blocks 6: 1/3 failed (95 % interval 6% to 79%)" in said
        command = re.search(r"^  (fnostab run stage_a .*)", out, re.MULTILINE)[1]
        assert "--profile small" in command
        assert "--set model.fno_blocks=6" in command
        assert "--set model.max_hidden_channels=512" in command
        assert "--set training.learning_rate=0.002" in command
        assert command.endswith("--experiment stage_a_6_blocks")

        answer = json.loads(call("decide", "--experiment", "crash_hunt", "--json")[1])
        assert (answer["special"]["lowest_failing"], answer["next"]["command"]) == (6, command)

    def test_the_command_runs_the_shootout_as_that_depth_was_run(self, store, call, record_study):
        record_study(store, "crash_hunt", {"depth_4": 1, "depth_6": 2}, study="crash_hunt", **{"training.epochs": 1})
        out = call("decide", "--experiment", "crash_hunt")[1]
        command = re.search(r"^  fnostab (run stage_a .*)", out, re.MULTILINE)[1].split()
        name, options = command[1], dict(zip(command[2::2], command[3::2], strict=True))
        given = [value for option, value in zip(command[2::2], command[3::2], strict=True) if option == "--set"]
        study = load_study(name, options["--profile"], parse_settings(tuple(given)))
        hunt = newest_study(store, find_experiment(store, "crash_hunt")).spec
        assert study.spec("any").arms["control"] == hunt.arms["depth_4"]

    def test_nothing_failed(self, store, call, record_study):
        record_study(store, "crash_hunt", {"depth_4": 0, "depth_6": 0}, study="crash_hunt")
        out = " ".join(call("decide", "--experiment", "crash_hunt")[1].split())
        assert "no trial failed at model.fno_blocks 4, 6" in out
        assert "3 trials without a failure at 6 leave a failure rate of up to 63% possible" in out
