"""Ask and tell: which trials a loop is handed, how they end, and that the answer is the command line's."""

import json
import math
import random
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest

import fnostab
from fnostab.cli import main
from fnostab.errors import ConfigError, DecisionError, FnostabError, JournalError, LaunchError
from fnostab.record.journal_outcomes import read_recorded
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import TrialSpec

STEPS = 12


def train(rec, seed, clip=False, lr=0.1):
    """A loss that becomes NaN at even seeds, unless it is clipped."""
    draw = random.Random(f"{seed} {clip} {lr}")
    rec.scheduled(STEPS)
    for step in range(STEPS):
        bad = not clip and seed % 2 == 0 and step == 8
        loss = math.nan if bad else 1 / (step + 1) + 0.01 * draw.random()
        if not rec.step(step, loss=loss, grad_norm=1 + draw.random()):
            return
    rec.validation(STEPS - 1, loss=loss)


def clipping(**more):
    return fnostab.Study(**{"name": "clipping", "control": {"clip": False}, "arms": {"clipped": {"clip": True}}} | more)


def run(study):
    """Train all that a study hands out; the names of the trials with their outcomes."""
    done = {}
    for trial in study:
        with trial.recorder() as rec:
            train(rec, trial.seed, **trial.settings)
        done[trial.name] = trial.outcome
    return done


def ended_by(trial, error, *losses):
    """Record losses, then raise an error."""
    with trial.recorder() as rec:
        for step, loss in enumerate(losses):
            rec.step(step, loss=loss)
        if error is not None:
            raise error


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class TestTrials:
    def test_each_is_handed_out_once_and_more_seeds_and_arms_extend_the_study(self):
        first = run(clipping(seeds=2))
        assert first == {
            "control-0": "nonfinite",
            "clipped-0": "converged",
            "control-1": "converged",
            "clipped-1": "converged",
        }
        assert run(clipping(seeds=2)) == {}
        assert list(run(clipping(seeds=3))) == ["control-2", "clipped-2"]
        both = {"clipped": {"clip": True}, "other": {"clip": False}}
        assert list(run(clipping(seeds=[1, 5], arms=both))) == ["other-1", "control-5", "clipped-5", "other-5"]

    def test_another_control_is_another_study_and_this_is_said(self, caplog):
        run(clipping(seeds=1))
        assert list(run(clipping(seeds=1, control={"clip": False, "lr": 0.2}))) == ["control-0", "clipped-0"]
        assert "this is a new study" in caplog.text

    def test_settings_keep_their_type(self):
        study = clipping(control={"clip": False, "lr": 1.0, "width": 8}, seeds=1)
        trial = next(iter(study))
        assert trial.settings == {"clip": False, "lr": 1.0, "width": 8}
        assert [type(value) for value in trial.settings.values()] == [bool, float, int]

    def test_none_in_control_takes_its_type_from_an_arm(self):
        study = clipping(control={"clip": None}, arms={"clipped": {"clip": 1.0}}, seeds=1)
        assert next(iter(study)).settings == {"clip": None}
        with pytest.raises(ConfigError, match="clip='much' is not accepted: expected a number or null"):
            clipping(control={"clip": None}, arms={"clipped": {"clip": 1.0}, "other": {"clip": "much"}})

    def test_a_trial_of_a_loop_that_was_left_is_handed_out_again(self):
        left = iter(clipping(seeds=1))
        trial = next(left)
        assert next(iter(clipping(seeds=1))).name == trial.name == "control-0"
        with pytest.raises(JournalError, match="take the next trial"), trial.recorder():
            pass

    def test_processes_side_by_side_train_no_trial_twice(self, tmp_path, environment):
        code = (
            "import fnostab, os, time\n"
            "study = fnostab.Study('pair', control={'a': 1}, arms={'b': {'a': 2}}, seeds=6)\n"
            "for trial in study:\n"
            "    print(trial.name, flush=True)\n"
            "    with trial.recorder() as rec:\n"
            "        for step in range(5):\n"
            "            rec.step(step, loss=1 + hash((trial.name, step)) % 1000 / 1000)\n"
            "            time.sleep(0.02)\n"
        )
        command = [sys.executable, "-c", code]
        pair = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
        names = Counter(name for process in pair for name in process.communicate(timeout=120)[0].decode().split())
        assert [process.returncode for process in pair] == [0, 0]
        assert len(names) == 12
        assert set(names.values()) == {1}

    def test_only_the_first_rank_is_handed_any(self, monkeypatch):
        monkeypatch.setenv("RANK", "1")
        with pytest.raises(LaunchError, match="RANK=1: only rank 0 gets trials; unset RANK"):
            next(iter(clipping()))


class TestEnds:
    @pytest.fixture
    def trial(self):
        return next(iter(clipping(seeds=1)))

    def outcome(self, trial):
        progress = TrialProgress(TrialSpec.read(trial.directory.parent / "trial.json"), trial.directory.parent)
        progress.update()
        return trial.outcome, progress.reason

    def test_an_error_of_the_code_is_raised_again_and_the_trial_is_handed_out_again(self, trial):
        with pytest.raises(KeyError, match="width"):
            ended_by(trial, KeyError("width"), 1.0)
        assert self.outcome(trial) == ("infra_error", "KeyError: 'width'")
        assert "in ended_by\n    raise error\nKeyError: 'width'" in (trial.directory.parent / "stderr.log").read_text()
        assert next(iter(run(clipping(seeds=1)))) == trial.name

    def test_an_error_after_the_training_has_failed_is_its_outcome_and_the_loop_goes_on(self, trial, caplog):
        ended_by(trial, ValueError("loss is NaN"), 1.0, math.nan)
        assert self.outcome(trial) == ("nonfinite", None)
        assert "control-0: nonfinite (ValueError: loss is NaN); the loop continues" in caplog.text
        assert trial.name not in run(clipping(seeds=1))

    @pytest.mark.parametrize("error", [MemoryError("too large"), RuntimeError("CUDA error: out of memory")])
    def test_a_trial_that_runs_out_of_memory_is_recorded_and_the_loop_goes_on(self, trial, error):
        ended_by(trial, error, 1.0)
        assert self.outcome(trial) == ("oom", f"{type(error).__name__}: {error}")
        assert trial.name not in run(clipping(seeds=1))

    def test_an_interruption_ends_the_loop_and_the_trial_is_handed_out_again(self, trial):
        with pytest.raises(KeyboardInterrupt):
            ended_by(trial, KeyboardInterrupt(), 1.0)
        assert self.outcome(trial) == ("killed", "asked to end")
        assert next(iter(run(clipping(seeds=1)))) == trial.name

    def test_an_interruption_that_the_training_catches_is_no_normal_end(self, trial, caplog):
        with trial.recorder() as rec:
            rec.step(0, loss=1.0)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            rec.validation(0, loss=1.0)
        assert self.outcome(trial) == ("killed", "asked to end")
        assert "control-0: killed (Ctrl-C before its last step); the loop continues" in caplog.text
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert next(iter(run(clipping(seeds=1)))) == trial.name

    def test_a_full_disk_is_said_where_not_even_the_error_can_be_written(self, trial):
        (trial.directory.parent / "stderr.log").mkdir()
        with pytest.raises(KeyError, match="width"):
            ended_by(trial, KeyError("width"), 1.0)
        assert self.outcome(trial) == ("infra_error", "KeyError: 'width'")

    def test_a_process_that_was_killed_leaves_its_trial_to_the_next_loop(self, tmp_path, environment):
        code = (
            "import fnostab, os\n"
            "study = fnostab.Study('clipping', control={'clip': False}, arms={'clipped': {'clip': True}}, seeds=1)\n"
            "for trial in study:\n"
            "    with trial.recorder() as rec:\n"
            "        rec.step(0, loss=1.0)\n"
            "        os.kill(os.getpid(), 9)\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False)
        assert list(run(clipping(seeds=1))) == ["control-0", "clipped-0"]

    def test_a_fork_that_leaves_the_block_by_an_error_judges_nothing(self, tmp_path, environment):
        code = (
            "import fnostab, os, time\n"
            "study = fnostab.Study('clipping', control={'clip': False}, arms={'clipped': {'clip': True}}, seeds=1)\n"
            "trial = next(iter(study))\n"
            "with trial.recorder() as rec:\n"
            "    rec.step(0, loss=1.0)\n"
            "    if (child := os.fork()) == 0:\n"
            "        raise ValueError('of the fork')\n"
            "    os.waitpid(child, 0)\n"
            "    rec.step(1, loss=0.5)\n"
            "print(trial.outcome)\n"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.stdout == "converged\n", done.stderr
        assert "ValueError: of the fork" in done.stderr
        (journal,) = tmp_path.glob("outputs/clipping/*/control-0/journal.jsonl")
        assert journal.read_text().count('"e":"outcome"') == 1

    def test_a_trial_without_a_record_is_an_error(self, trial):
        with pytest.raises(LaunchError, match=r"control-0: it recorded nothing: the script must call rec.step"):
            ended_by(trial, None)
        recorded = re.escape("only train_loss: the script must call rec.step(i, loss=...)")
        with pytest.raises(LaunchError, match=recorded), next(iter(clipping(seeds=1))).recorder() as rec:
            rec.step(0, train_loss=1.0)
        with pytest.raises(LaunchError, match=r"control-0 was not recorded: train it in `with trial.recorder"):
            list(clipping(seeds=1))

    def test_a_training_that_ignores_its_seed_is_an_error(self):
        first, second = (clipping(seeds=[seed]) for seed in (0, 1))
        ended_by(next(iter(first)), None, 1.0, 0.5, 0.3)
        with pytest.raises(LaunchError, match="control-1: the script ignores its seed: all its values are those of"):
            ended_by(next(iter(second)), None, 1.0, 0.5, 0.3)

    def test_rules_are_those_of_a_study_file_and_judge_finished_trials_again(self):
        assert run(clipping(seeds=[1])) == {"control-1": "converged", "clipped-1": "converged"}
        stricter = clipping(seeds=[1], outcome={"failed": {"above": 0.01}})
        assert run(stricter) == {}
        assert "1/1" in "".join(repr(stricter.decide()).split("control")[1:2])


class TestWhatIsMadeInTheBlock:
    def test_a_recorder_of_the_training_s_own_writes_to_the_trial(self):
        trial = next(iter(clipping(seeds=[1])))
        with trial.recorder() as rec:
            with fnostab.Recorder() as own:
                train(own, 1)
            rec.validation(STEPS, loss=0.5)
        assert trial.outcome == "converged"
        assert read_recorded(trial.directory.parent).curves["val/loss"].keys() == {STEPS - 1, STEPS}

    def test_a_stability_monitor_finds_the_trial(self):
        from small_module import Small, fit

        trial = next(iter(clipping(seeds=[3])))
        with trial.recorder():
            fit(Small(), fnostab.StabilityMonitor(), 4)
        assert trial.outcome == "converged"
        assert len(read_recorded(trial.directory.parent).curves["grad_norm/total"]) == 4

    def test_one_monitor_may_watch_the_trials_one_after_the_other(self, workplace):
        from small_module import Small, fit

        monitor = fnostab.StabilityMonitor()
        for trial in clipping(seeds=2):
            with trial.recorder():
                fit(Small(add_to_loss={0: trial.seed}), monitor, 4)
            assert len(read_recorded(trial.directory.parent).curves["grad_norm/total"]) == 4
        fit(Small(), monitor, 2)
        assert (monitor.outcome, monitor.sink) == ("converged", None)


class TestAnswer:
    def test_it_is_that_of_the_command_line_on_the_same_records(self, workplace, capsys):
        study = clipping(seeds=6, baseline=0.9)
        with pytest.raises(DecisionError, match="no trial of clipping was trained"):
            study.decide()
        run(study)
        case = study.decide()
        text = " ".join(repr(case).split())
        assert "clipped helps, at a cost: 0 of 6 failed, 3 of 6 of control" in text
        assert "More seeds do not reduce the sampling error of one validation set." in text
        assert "<dt>Failed</dt><dd>control 3/6, clipped 0/6</dd>" in case._repr_html_()
        with pytest.raises(SystemExit, match="0"):
            main(["decide", "--experiment", "clipping", "--json"])
        said = json.loads(capsys.readouterr().out)
        assert [answer["sentence"] for answer in said["answers"]] == list(case.verdict.sentences)
        with pytest.raises(SystemExit, match="0"):
            main(["sync", "outputs"])
        assert "12 trials already in" in capsys.readouterr().out

    def test_more_seeds_are_asked_for_in_words_and_not_by_a_command_that_could_not_run_them(self, workplace):
        study = clipping(seeds=2)
        run(study)
        case = study.decide()
        assert case.verdict.next.text
        assert case.command == ""


class TestInput:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"name": "a b"}, "name='a b' is not accepted"),
            ({"control": [1]}, r"Study\('clipping'\): control=\[1\] is not accepted: expected a mapping"),
            ({"arms": {"clipped": 3}}, "clipped=3 is not accepted: expected a mapping"),
            ({"arms": {"control": {"clip": True}}}, "'control' is the arm of control="),
            ({"arms": {"clipped": {"clipp": True}}}, r"arm clipped: unknown setting 'clipp' \(did you mean 'clip'"),
            ({"arms": {"clipped": {"clip": "yes"}}}, "clip='yes' is not accepted: expected true or false"),
            ({"control": {"clip": False, "seed": 1}}, "seed is reserved"),
            ({"control": {"clip": False, "lr": None}}, r"lr: null has no type: write lr: {type: float"),
            ({"seeds": 0}, "seeds=0 is not accepted"),
            ({"metric": "loss"}, r"no 'loss' is recorded: rec.validation\(i, loss=...\) records val/loss"),
            ({"outcome": {"faild": {"above": 1}}}, r"'outcome.faild' \(did you mean 'failed'"),
            ({"baseline": 1.0, "outcome": {"failed": {"above": 2}}}, "baseline 1 and failed contradict one another"),
            ({"experiment": "a/b"}, "experiment='a/b' is not accepted"),
            ({"experiment": 3}, "experiment=3 is not accepted: expected a name"),
            ({"output": None}, "output=None is not accepted: expected a folder"),
            ({"seeds": "12"}, "seeds='12' is not accepted: expected their number, as 10, or a list"),
            ({"seeds": 2.5}, "seeds=2.5 is not accepted"),
            ({"seeds": True}, "seeds=True is not accepted"),
            ({"seeds": None}, "seeds=None is not accepted"),
            ({"seeds": [3, 3]}, r"seeds=\[3, 3\] is not accepted"),
            ({"metric": None}, "metric=None is not accepted: expected a name, as 'val/loss'"),
            ({"metric": "val/../loss"}, "'val/../loss' is not a metric name"),
            ({"metric": ""}, "'' is not a metric name"),
            ({"outcome": [1]}, r"outcome=\[1\] is not accepted: expected rules of failures"),
            ({"outcome": {"failed": 3}}, "outcome.failed=3 is not accepted: input should be a mapping$"),
            (
                {"baseline": 1.0, "outcome": {"baseline": 1.5}},
                "baseline=1.0 and outcome={'baseline': 1.5} both name it",
            ),
            ({"control": {3: 1}}, "control: the name 3 of a setting is not text"),
            (
                {"control": {"clip": None}, "arms": {"a": {"clip": max}}},
                "clip=<built-in function max>: expected a number",
            ),
            (
                {"control": {"clip": False, "text": "\ud800"}},
                r"text='\\ud800' is not accepted: it can't be written in UTF-8",
            ),
            ({"arms": {"a" * 201: {"clip": True}}}, "at most 200 characters"),
        ],
    )
    def test_what_is_not_accepted_is_named(self, given, said):
        with pytest.raises(ConfigError, match=said):
            clipping(**given)

    def test_numbers_of_array_libraries_are_numbers(self):
        import numpy as np
        import torch

        sizes = {"lr": np.float32(0.5), "width": np.int64(8), "clip": np.bool_(False), "at": [torch.tensor(2), 3]}
        study = clipping(control=sizes, seeds=np.arange(1, 3))
        trials = study._read()[1]
        assert [trial.seed for trial in trials] == [1, 1, 2, 2]
        assert trials[0].spec.settings == {"lr": 0.5, "width": 8, "clip": False, "at": [2, 3]}

    def test_seeds_beside_a_file_are_checked_as_well(self, tmp_path):
        (tmp_path / "study.yaml").write_text("name: a\ndescription: b\ncontrol: c\narms: {c: {}}\nseeds: 2\n")
        for seeds in (0, "3", [0, 0]):
            with pytest.raises(ConfigError, match=r"study.yaml: seeds=.* is not accepted: expected their number"):
                fnostab.Study.read("study.yaml", seeds=seeds)
        assert len(fnostab.Study.read("study.yaml")._read()[1]) == 2

    def test_a_study_of_a_file_is_the_same_study(self, tmp_path):
        text = (
            "name: clipping\ndescription: Does clipping help?\ndefaults: {clip: false}\ncontrol: control\n"
            "arms: {control: {}, clipped: {clip: true}}\nseeds: 1\n"
        )
        (tmp_path / "study.yaml").write_text(text)
        assert len(run(fnostab.Study.read("study.yaml", seeds=2))) == 4
        assert run(clipping(seeds=2)) == {}
        for line in ("command: python x.py --seed {seed} {--clip}", "task: ptychography"):
            (tmp_path / "study.yaml").write_text(f"{text}{line}\n")
            with pytest.raises(
                FnostabError, match=r"study.yaml, line 7: (command|task) names what `fnostab run` starts"
            ):
                fnostab.Study.read("study.yaml")
