"""A whole study of a plain script, as a stranger runs it: through the command line, in processes of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

SCRIPT = """
import argparse, os, random, time
from fnostab.recorder import Recorder

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--clip", action="store_true")
parser.add_argument("--seed", type=int)
parser.add_argument("--note")
args = parser.parse_args()
assert args.note == "; rm -rf x", args.note
draw = random.Random(args.seed)
with Recorder() as rec:
    rec.scheduled(30)
    for step in range(30):
        loss = 1 / (step + 1) + 0.01 * draw.random()
        if not args.clip and args.seed % 2 and step > 20:
            loss = float("nan")
        if not rec.step(step, loss=loss, grad_norm=1 + draw.random(), lr=args.lr):
            break
        if step % 10 == 9:
            rec.validation(step, loss=loss)
        while step == 5 and os.path.exists("wait"):
            time.sleep(0.02)
"""
STUDY = """
name: plain
description: Does clipping keep a plain script from failing?
command: python train.py --lr {lr} {--clip} --seed {seed} --note {note}
metric: {name: val/loss, of: last}
margin: 0.5
outcome: {baseline: 1.0}
defaults: {lr: 0.1, clip: false, note: "; rm -rf x"}
control: control
arms:
  control: {}
  clipped: {clip: true}
"""
OF_PTYCHOGRAPHY = re.compile(
    r"reconstruct|\bssim\b|\btwin|stage b\b|layerscale|\bblocks?\b|scale model|ptychograph|complex field", re.I
)
RUN = ("run", "study.yaml", "--seeds", "2", "--jobs", "2")


@pytest.fixture(scope="module")
def place(empty_database, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    shutil.copy(empty_database, folder / "mlflow.db")
    (folder / "train.py").write_text(SCRIPT)
    (folder / "study.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def interrupted(place, environment):
    """The output of a run that got Ctrl-C while its first trials were under way."""
    (place / "wait").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "fnostab", *RUN],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not _points(place):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=240)[0]
    (place / "wait").unlink()
    return output, process.returncode


@pytest.fixture(scope="module")
def finished(interrupted, place, fnostab):
    return fnostab(place, *RUN)


def _journals(place):
    return sorted(place.glob("outputs/plain/*/*/journal.jsonl"))


def _points(place):
    return sum('"s":' in line for path in _journals(place) for line in path.read_text().splitlines())


def _said(result):
    return result.stdout + result.stderr


def test_ctrl_c_ends_it_and_leaves_no_process(interrupted, place):
    output, status = interrupted
    assert status == 130, output
    assert "the same command resumes them" in output
    left = [p.info["cmdline"] for p in psutil.process_iter(["cmdline", "cwd"]) if p.info["cwd"] == str(place)]
    assert left == []


def test_the_same_command_goes_on_and_repeats_no_step(finished, place):
    assert finished.returncode == 0, _said(finished)
    assert len(_journals(place)) == 4
    for path in _journals(place):
        records = [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]
        steps = [r["s"] for r in records if "train/loss" in (*r.get("v", {}), *r.get("x", {}))]
        assert steps == sorted(set(steps))
        assert [r["t"] for r in records] == sorted(r["t"] for r in records)
        assert records[-1]["e"] == "outcome"


def test_once_more_it_has_nothing_to_do(finished, place, fnostab):
    again = fnostab(place, *RUN)
    assert again.returncode == 0, _said(again)
    assert "4 of 4 trials are finished already" in again.stdout


def test_an_added_seed_trains_only_that(finished, place, fnostab):
    more = fnostab(place, "run", "study.yaml", "--seeds", "3", "--jobs", "2")
    assert more.returncode == 0, _said(more)
    assert "4 of 6 trials are finished already" in more.stdout


def test_decide_counts_its_outcomes(finished, place, fnostab):
    result = fnostab(place, "decide", "--experiment", "plain", "--json")
    assert '"nonfinite"' in result.stdout, _said(result)
    outcomes = [p.read_text().splitlines()[-1] for p in _journals(place)]
    assert [o.count('"outcome":"nonfinite"') for o in outcomes].count(1) == 1


def test_a_store_without_the_script_takes_the_study(finished, place, fnostab, tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    shutil.copytree(place / "outputs", tmp_path / "outputs")
    synced = fnostab(tmp_path, "sync", "outputs")
    assert synced.returncode == 0, _said(synced)
    decided = fnostab(tmp_path, "decide", "--experiment", "plain", "--json")
    assert '"nonfinite"' in decided.stdout, _said(decided)


def test_nothing_that_is_said_is_of_another_task(interrupted, finished, place, fnostab):
    said = [
        interrupted[0],
        _said(finished),
        *(
            _said(fnostab(place, *words))
            for words in (
                (*RUN, "--dry-run"),
                ("watch", "--once"),
                ("studies", "show", "study.yaml"),
                ("sync", "outputs"),
                ("plan", "study.yaml"),
            )
        ),
    ]
    assert [found for text in said if (found := OF_PTYCHOGRAPHY.search(text))] == []


DRIVER = """#!/bin/sh
case "$1" in -L) echo "GPU 0: one"; echo "GPU 1: other";; *) echo 24576; echo 24576;; esac
"""
ON_GPUS = """
import os, pathlib, sys, time
from fnostab.recorder import Recorder

pathlib.Path(sys.argv[1] + ".gpu").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
deadline = time.monotonic() + 60
while len(list(pathlib.Path().glob("*.gpu"))) < 2 and time.monotonic() < deadline:
    time.sleep(0.05)
with Recorder() as rec:
    rec.step(0, loss=1.0)
    rec.validation(0, loss=1.0 + int(sys.argv[1]))
"""


def test_each_trial_has_a_gpu_of_its_own_and_as_many_run_as_there_are(workplace, environment, fnostab):
    """The driver is a stand-in that says that there are two; the rest is real."""
    (workplace / "bin").mkdir()
    (workplace / "bin" / "nvidia-smi").write_text(DRIVER)
    (workplace / "bin" / "nvidia-smi").chmod(0o755)
    (workplace / "train.py").write_text(ON_GPUS)
    study = {"name": "gpus", "description": "?", "command": "python train.py {seed}", "control": "control"}
    study |= {"arms": {"control": {}}, "metric": {"name": "val/loss", "of": "last"}}
    (workplace / "study.yaml").write_text(json.dumps(study))
    path = f"{workplace / 'bin'}{os.pathsep}{environment['PATH']}"
    result = fnostab(workplace, "run", "study.yaml", "--seeds", "2", PATH=path)
    assert result.returncode == 0, _said(result)
    assert sorted((workplace / f"{seed}.gpu").read_text() for seed in range(2)) == ["0", "1"]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_program_that_is_not_there_is_refused_in_a_line_and_nothing_is_written(call, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "study.yaml").write_text(STUDY.replace("command: python ", "command: no-such-program "))
    status, _, err = call("run", "study.yaml", "--seeds", "1", *more)
    assert (status, err) == (2, "error: command: no program 'no-such-program' on PATH\n")
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "study.yaml"}


def test_a_dry_run_shows_the_command_of_each_arm(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    arms = {"control": {}, "high": {"lr": 3e-2}}
    study = {"name": "two", "description": "Two arms.", "command": "python train.py --lr {lr} --seed {seed}"}
    text = json.dumps(study | {"metric": "val/loss", "defaults": {"lr": 1e-3}, "control": "control", "arms": arms})
    (tmp_path / "study.yaml").write_text(text)
    status, out, _ = call("run", "study.yaml", "--seeds", "2", "--dry-run")
    assert status == 0
    assert out.splitlines()[-2:] == ["python train.py --lr 0.001 --seed 0", "python train.py --lr 0.03 --seed 0"]


RAISES = """import sys
from fnostab.recorder import Recorder
with Recorder() as rec:
    rec.step(0, loss=1.0 + float(sys.argv[1]))
    raise ValueError("loss is NaN")
"""


def test_a_dry_run_tells_what_was_given_up_from_what_has_a_result(call, workplace):
    _small_study(workplace, RAISES)
    run = ("run", "study.yaml", "--attempts", "1")
    status, _, err = call(*run, "--seeds", "2")
    assert status == 2
    assert (
        "--attempts 4 retries those that were given up; a changed script needs no --attempts, since it is a new study"
        in " ".join(err.split())
    )
    status, out, _ = call(*run, "--seeds", "2", "--dry-run")
    assert status == 0
    assert "2 of 2 trials were given up, such as control-0: infra_error" in out
    assert out.splitlines()[-1] == "0 of 2 trials would be started"
    assert "1 of 3 trials would be started, 1 side by side:" in call(*run, "--sequential", "3,6", "--dry-run")[1]
    assert "leave out --seeds" in call(*run, "--sequential", "3,6", "--seeds", "2", "--dry-run")[2]


NEEDS_A_FILE = """import sys
from pathlib import Path
from fnostab.recorder import Recorder
with Recorder() as rec:
    for i in range(30):
        rec.step(i, loss=1.0 + float(sys.argv[1]))
        assert Path("data").exists()
        if i % 10 == 9:
            rec.validation(i // 10, loss=1.0 + float(sys.argv[1]))
"""


def test_train_tries_a_trial_of_the_control_once_each_time_it_is_asked_and_says_what_is_odd(call, workplace):
    (workplace / "train.py").write_text(NEEDS_A_FILE)
    study = {"name": "one", "description": "?", "command": "python train.py {seed}", "control": "base"}
    (workplace / "study.yaml").write_text(json.dumps(study | {"arms": {"base": {}}}))
    for _ in range(4):  # one more than `fnostab run` would
        status, out, err = call("train", "study.yaml")
        assert (status, out.count("base-0: infra_error")) == (2, 1)
        assert "base-0 ended without a result: infra_error (exit status 1: AssertionError" in err
        assert "fix that, then the same command retries it" in err
    (workplace / "data").touch()
    status, out, err = call("train", "study.yaml")
    assert status == 0, err
    odd = "base-0: its validations are numbered 0 to 2, its steps to 29"
    assert odd in out
    said = " ".join(call("decide", "--experiment", "one")[1].split())
    assert f"1 of 1 trial converged, but their records look wrong, such as {odd}" in said


def test_until_control_and_another_arm_have_trials_the_next_command_is_no_verdict_but_the_run(call, workplace):
    (workplace / "train.py").write_text(SCRIPT)
    (workplace / "study.yaml").write_text(STUDY)
    at = ("--set", "lr=0.2", "--output", "of mine")
    run = "fnostab run study.yaml --set lr=0.2 --output 'of mine'"
    status, out, err = call("train", "study.yaml", "--arm", "clipped", *at)
    assert status == 0, err
    assert f"  {run}    # the other trials" in out
    assert "fnostab decide" not in out
    assert call("watch", "--output", "of mine")[1].splitlines()[-1] == f"next: {run}"
    err = call("decide", "--experiment", "plain")[2]
    assert err.endswith("its arms: clipped; `fnostab run study.yaml --arms control --set lr=0.2` trains it\n")
    status, out, err = call("run", "study.yaml", "--arms", "control", "--seeds", "2", *at)
    assert status == 0, err
    assert "  fnostab decide --experiment plain    # the verdict" in out
    assert call("watch", "--output", "of mine")[1].splitlines()[-1] == "next: fnostab decide --experiment plain"


WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"lightning", "safetensors", "skimage", "torch"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def test_without_torch_a_plain_script_is_trained_judged_and_reported(empty_database, tmp_path, environment, fnostab):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_TORCH)
    bare = os.pathsep.join([str(tmp_path / "site"), environment["PYTHONPATH"]])
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "study.yaml").write_text(STUDY)
    for command in (RUN, ("decide", "--experiment", "plain"), ("report", "--experiment", "plain")):
        done = fnostab(tmp_path, *command, PYTHONPATH=bare)
        assert done.returncode == 0, _said(done)
    refused = fnostab(tmp_path, "run", "stage_a", "--profile", "small", "--seeds", "1", PYTHONPATH=bare)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: ")
    assert refused.stderr.splitlines()[-1].endswith("is not installed: pip install 'fnostab[torch]'")
    assert "Traceback" not in refused.stderr


NEWCOMER = """import sys
from fnostab.recorder import Recorder
with Recorder() as rec:
    for i in range(3):
        rec.step(i, loss=1.0 + float(sys.argv[1]))
        rec.validation(i, loss=1.0 + float(sys.argv[1]))
"""
MISSPELLED = {"metric": {"name": "val/lss", "of": "last"}}
BEYOND_REACH = {"metric": {"name": "val/loss", "of": "last"}, "outcome": {"baseline": 0.0001}}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (MISSPELLED, "no trial recorded val/lss; recorded: val/loss (did you mean 'val/loss'?)"),
        (BEYOND_REACH, "all trials of all arms are stagnated: check baseline 0.0001 and higher_is_better"),
    ],
)
def test_a_study_asked_in_the_wrong_way_says_so_at_its_end_and_when_it_is_judged(call, workplace, asked, said):
    (workplace / "train.py").write_text(NEWCOMER)
    study = {"name": "plain", "description": "?", "command": "python train.py {seed}", "control": "control"}
    (workplace / "study.yaml").write_text(json.dumps(study | {"arms": {"control": {}}} | asked))
    status, out, err = call("run", "study.yaml", "--seeds", "2")
    assert (status, out.count(said)) == (0, 1), err
    assert call("decide", "--experiment", "plain")[1].count(said) == 1


def test_a_misspelled_metric_is_named_when_the_first_trial_has_ended(call, workplace):
    (workplace / "train.py").write_text(NEWCOMER)
    study = {"name": "plain", "description": "?", "command": "python train.py {seed}", "control": "control"}
    (workplace / "study.yaml").write_text(json.dumps(study | {"arms": {"control": {}}} | MISSPELLED))
    status, out, err = call("run", "study.yaml", "--seeds", "2", "--jobs", "1")
    early = "control-0 did not record val/lss; recorded: val/loss (did you mean 'val/loss'?)"
    assert (status, out.count("did not record")) == (0, 1), err
    assert out.index(early) < out.index("control-1: ")


SOME_VALIDATE = NEWCOMER.replace("        rec.validation", "        if sys.argv[2] == '1': rec.validation")


def _study_with_a_silent_arm(folder, **asked):
    (folder / "train.py").write_text(SOME_VALIDATE)
    study = {"name": "plain", "description": "?", "command": "python train.py {seed} {validate}", "control": "control"}
    study |= {"defaults": {"validate": 1}, "arms": {"control": {}, "silent": {"validate": 0}}}
    (folder / "study.yaml").write_text(json.dumps(study | asked))


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        ({"failed": {"above": 0.5}}, "val/loss; recorded: train/loss; rec.validation(i, loss=...)"),
        ({"baseline": 0.5}, "val/loss; recorded: train/loss; rec.validation(i, loss=...)"),
        ({"stagnated": {"val/accuracy": {"below": 0.2}}}, "val/accuracy"),
        ({"collapsed": {"val/spread": {"below": 0.2}}}, "val/spread"),
    ],
)
def test_a_trial_that_did_not_record_what_its_rules_judge_is_no_success(call, workplace, rules, missing):
    """In store, table and answer alike; and the first one says so before others are trained in vain."""
    _study_with_a_silent_arm(workplace, outcome=rules)
    status, out, err = call("run", "study.yaml", "--seeds", "3", "--jobs", "1", "--arms", "silent")
    said = " ".join(out.split())
    assert status != 0
    assert "1 of 3 trials ended without a result, 2 did not start, such as silent-0: infra_error" in err
    assert f"silent-0: its outcome can't be judged: it did not record {missing}" in said
    assert "no more trials are started: record it in every arm, or correct metric and outcome in the study file" in said
    assert "silent-1" not in said
    table = workplace / "trials.csv"
    assert call("export", str(table), "--experiment", "plain")[0] == 0
    assert "silent,0,infra_error" in table.read_text()


def test_trials_that_could_not_be_judged_are_judged_when_the_rules_are_corrected(call, workplace):
    _study_with_a_silent_arm(workplace, outcome={"stagnated": {"val/acuracy": {"below": 0.2}}})
    assert call("run", "study.yaml", "--seeds", "1", "--jobs", "1", "--arms", "control")[0] != 0
    _study_with_a_silent_arm(workplace, outcome={"failed": {"above": 5.0}})
    status, out, err = call("run", "study.yaml", "--seeds", "1", "--jobs", "1", "--arms", "control")
    assert status == 0, err
    assert "1 of 1 trial is finished already" in out


def test_an_arm_that_records_no_metric_is_named_before_it_is_said_to_help(call, workplace):
    _study_with_a_silent_arm(workplace)
    said = (
        "trials that recorded no val/loss were judged by their training loss alone, others by val/loss too: 3 of silent"
    )
    status, out, err = call("run", "study.yaml", "--seeds", "3")
    assert (status, " ".join(out.split()).count(said)) == (0, 1), err
    assert " ".join(call("decide", "--experiment", "plain")[1].split()).count(said) == 1


def test_an_arm_with_the_settings_of_control_is_compared_nowhere(call, workplace):
    _small_study(workplace, NEWCOMER, arms={"twin": {}, "control": {}})
    said = "twin has the settings of control: it is not compared, and no test counts it"
    status, out, err = call("run", "study.yaml", "--seeds", "3")
    assert (status, out.count(said)) == (0, 1), err
    assert call("export", "trials.csv", "--experiment", "plain")[0] == 0
    for source in (["--experiment", "plain"], ["--table", "trials.csv"]):
        judged = json.loads(call("decide", *source, "--json")[1])
        assert (judged["answers"], judged["criteria"]) == ([], [])
        assert [line for line in judged["judged"] if "twin" in line] == [said]
    assert call("report", "--experiment", "plain")[0] == 0
    assert said in (workplace / "reports" / "plain" / "report.html").read_text()


def test_after_a_verdict_the_next_command_is_no_verdict(call, workplace):
    (workplace / "train.py").write_text(NEWCOMER)
    study = {"name": "plain", "description": "?", "command": "python train.py {seed}", "control": "control"}
    (workplace / "study.yaml").write_text(json.dumps(study | {"arms": {"control": {}}}))
    for decide, command in (["--decide"], "report"), ([], "decide"):
        status, out, err = call("run", "study.yaml", "--seeds", "1", *decide)
        assert status == 0, err
        assert out.splitlines()[-1].split()[:4] == ["fnostab", command, "--experiment", "plain"]
        assert ("fnostab decide" in out) == (command == "decide")


CARELESS = """import pathlib, sys
from fnostab.recorder import Recorder
with Recorder() as rec:
    for i in range(5):
        loss = 1.0 / (i + 1) + 0.1 * float(sys.argv[1])
        rec.step(i, loss=loss)
    rec.validation(i, loss=loss)
print("All-NaN slice: none; nan_to_num: off")
print("test loss: nan" if sys.argv[1] == "1" else "test loss: 0.2")
pathlib.Path("checkpoints").mkdir(exist_ok=True)
pathlib.Path("checkpoints/last.txt").write_text(sys.argv[1])
"""
IGNORES_ITS_SEED = """from fnostab.recorder import Recorder
with Recorder() as rec:
    for i in range(5):
        rec.step(i, loss=1.0 / (i + 1))
    rec.validation(i, loss=0.2)
"""


def _small_study(folder, script, **asked):
    (folder / "train.py").write_text(script)
    study = {"name": "plain", "command": "python train.py {seed}", "control": "control"}
    study |= {"arms": {"control": {}}, "metric": {"name": "val/loss", "of": "last"}}
    (folder / "study.yaml").write_text(json.dumps(study | asked))


def test_a_nan_that_is_only_printed_and_files_that_trials_share_are_told(call, workplace):
    _small_study(workplace, CARELESS)
    status, out, err = call("run", "study.yaml", "--seeds", "2")
    assert status == 0, err
    said = " ".join(out.split())
    assert "control-1: converged (its log shows NaN, its records none: 'test loss: nan'; record what it prints)" in said
    assert said.count("its log shows NaN") == 1
    assert "files changed beside the study file: checkpoints/last.txt. If the program writes them" in said
    again = call("run", "study.yaml", "--seeds", "2")[1]
    assert "files changed" not in again  # nothing ran


def test_files_of_one_trial_alone_or_in_its_own_directory_are_no_matter(call, workplace):
    of_its_own = CARELESS.replace('Path("checkpoints', 'Path(sys.argv[2] + "/checkpoints')
    _small_study(workplace, of_its_own, command="python train.py {seed} {directory}")
    assert "files changed" not in call("run", "study.yaml", "--seeds", "2")[1]
    _small_study(workplace, CARELESS, name="other")
    assert "files changed" not in call("run", "study.yaml", "--seeds", "1")[1]


def test_decide_says_why_trials_broke(call, workplace):
    _small_study(workplace, IGNORES_ITS_SEED)
    assert call("run", "study.yaml", "--seeds", "2")[0] != 0
    said = " ".join(call("decide", "--experiment", "plain")[1].split())
    assert (
        "1 of 2 trials ended without a result, such as control-1: the script ignores its seed: all its values are"
        in said
    )


def test_apply_is_refused_before_the_verdict_is_recorded_where_a_task_has_no_defaults(call, workplace):
    _small_study(workplace, IGNORES_ITS_SEED)
    call("run", "study.yaml", "--seeds", "1")
    code, out, err = call("decide", "--experiment", "plain", "--apply")
    assert (code, out) == (2, "")
    assert err == "error: --apply: task command has no defaults that a verdict could set\n"


SHORT = """import sys
from fnostab.recorder import Recorder

with Recorder() as rec:
    rec.scheduled(100)
    for step in range(50):
        rec.step(step, loss=float(sys.argv[1]) + 100 - step)
"""


def test_a_program_that_ends_half_way_is_told(call, workplace):
    _small_study(workplace, SHORT)
    said = " ".join("".join(call("run", "study.yaml", "--seeds", "1")[1:]).split())
    assert "converged (its records end after 50 of 100 scheduled steps)" in said
    said = " ".join(call("decide", "--experiment", "plain")[1].split())
    assert "the records of 1 of 1 trial that converged end before their schedule" in said


def test_where_nothing_came_to_a_result_no_curves_and_no_verdict_are_offered(call, workplace):
    _small_study(workplace, "def train():\n    raise RuntimeError('no data')\n\n\ntrain()\n")
    status, out, err = call("run", "study.yaml", "--seeds", "2")
    assert status != 0
    assert "exit status 1: RuntimeError: no data" in " ".join(out.split())
    assert "\n      raise RuntimeError('no data')\n" in out  # with the log's own indentation
    assert "next:" not in out
    assert "fix that, then the same command retries them" in " ".join(err.split())
