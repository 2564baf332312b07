"""Every wrong input ends in one line that names it and the remedy, and leaves nothing half made."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fnostab.launch import study_upload
from fnostab.ptychography.data import prepare
from fnostab.ptychography.settings import TrialConfig
from fnostab.record import names
from fnostab.study.study import load_study
from fnostab.tracking import open_store

RUN = ("run", "stage_a", "--profile", "small", "--arms", "control", "--seeds", "1")


def statuses():
    """Of all runs in the database."""
    with contextlib.closing(sqlite3.connect("mlflow.db")) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM runs")]


def assert_refused(answer, pattern):
    status, _, err = answer
    assert status == 2
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert re.search(pattern, err), err


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("run", "stage_z"), r"no study 'stage_z'.*; built in: .*stage_a"),
        (("run", "stge_a"), r"no study 'stge_a' \(did you mean 'stage_a'\?\); built in"),
        (("run", "absent.yaml"), r"can't read the study absent.yaml: No such file"),
        (("run",), r"Missing argument 'STUDY'; see `fnostab run --help`"),
        ((*RUN, "--arms", "nobody"), r"stage_a has no arm 'nobody'; arms: control, arch_fix, opt_fix, cure"),
        ((*RUN, "--arms", "contrl"), r"stage_a has no arm 'contrl' \(did you mean 'control'\?\); arms: control, arch"),
        ((*RUN, "--profile", "tiny"), r"profile='tiny' is not known; accepted: auto, full, small"),
        ((*RUN, "--experiment", "a/b"), r"experiment='a/b' is not accepted"),
        ((*RUN, "--seeds", "-1"), r"seeds='-1' is not accepted: give a count from 1"),
        ((*RUN, "--seeds", "banana"), r"seeds='banana' is not accepted"),
        ((*RUN, "--jobs", "0"), r"jobs='0' is not accepted: give a whole number from 1"),
        ((*RUN, "--jobs", "-2"), r"jobs='-2' is not accepted"),
        ((*RUN, "--epochs", "x"), r"epochs='x' is not accepted"),
        ((*RUN, "--epochs", "21"), r"epochs=21 is above 20.*training.stress_test=true"),
        ((*RUN, "--training.learning_rate", "banana"), r"training.learning_rate='banana' is not accepted.*number"),
        ((*RUN, "--training.learning_rate", "-1"), r"training.learning_rate=-1 is not accepted.*greater than 0"),
        (
            (*RUN, "--set", "training.learning_rate"),
            r"'training.learning_rate' is not accepted: write it as name=value",
        ),
        ((*RUN, "--lerning_rate", "3"), r"setting 'lerning_rate' \(did you mean 'training.learning_rate'\?\)"),
        ((*RUN, "--set", "data.path="), r"'data.path=' has no value: is a variable empty\? Write data.path=null for"),
        ((*RUN, "--data.path", ""), r"'data.path=' has no value: is a variable empty\?"),
        ((*RUN, "--set", "model.fno_blocs=4"), r"unknown setting 'model.fno_blocs' \(did you mean 'fno_blocks'\?\)"),
        ((*RUN, "--set", "model.architecture=hybird"), r"'hybird' is not known \(did you mean 'hybrid'\?\)"),
        ((*RUN, "--set", "model.architecture=no.such.Net"), r"can't find the file of the module 'no.such'.*PYTHONPATH"),
        ((*RUN, "--set", "data.object_size=20"), r"object_size=20 leaves no room to scan: at least .* is needed"),
        ((*RUN, "--clip", "3"), r"unknown setting 'clip'"),
        ((*RUN, "--model.fno_blocks"), r"--model.fno_blocks has no value"),
        ((*RUN, "--set", "data.probe.path=absent.npz"), r"can't read the probe absent.npz.*check data.probe.path"),
        ((*RUN, "--tracking-uri", "http://127.0.0.1:1"), r"no tracking server answers at http://127.0.0.1:1"),
        ((*RUN, "--tracking-uri", "sqlite:///absent/mlflow.db"), r"no directory .*absent; make it"),
        ((*RUN, "--tracking-uri", "ftp://host"), r"'ftp://host' is not supported; accepted: http"),
        (("train",), r"which trial\? Name a study"),
        (("train", "stage_a", "--seed", "-1"), r"seed='-1' is not accepted: give a whole number from 0"),
        (("train", "stage_a", "--arm", "nobody"), r"no arm 'nobody'"),
        (("train", "--trial", "absent.json"), r"can't read absent.json: No such file"),
        (("activations", "stage_z"), r"no study 'stage_z'"),
        (("activations", "--seeds", "0"), r"seeds='0' is not accepted: give a count from 1"),
        (("activations", "--seeds", "x", "--at", "initialisation"), r"seeds='x' is not accepted"),
        (("activations", "--at", "noon"), r"'--at': 'noon' is not one of 'initialisation', 'both'"),
        (("activations", "--at", "initialisation", "--arms", "nobody"), r"stage_a has no arm 'nobody'"),
        (("decide", "--experiment", "nothing"), r"no experiment 'nothing' in sqlite:.*; there are: Default"),
        (("decide", "--experiment", "Default"), r"has no study"),
        (("decide", "--experment", "stage_a"), r"No such option.*--experment.*see `fnostab decide --help`"),
        (("export", "table.csv", "--experiment", "nothing"), r"no experiment 'nothing'"),
        (("sync", "absent"), r"no trial found under /\S+/absent: name a trial's folder"),
        (("sync", "absent", "--follow"), r"no study found under /\S+/absent: name a study's folder"),
        (
            ("replay", "absent"),
            r"/\S+/absent is neither a folder nor the id of a run: `fnostab replay` lists what failed",
        ),
        (("sync", "."), r"no trial found under /\S+: name a trial's folder"),
        (("decide", "nothing"), r"no experiment 'nothing' in sqlite:.*; there are: Default"),
        (("report", "Default", "--experiment", "Default"), r"has no study"),
        (("decide", "a", "--experiment", "b"), r"two experiments are given, a and --experiment b: name one"),
        (("decide", "a", "--table", "t.csv"), r"give one of --experiment, --table and --runs"),
        (("decide", "--table", "t.csv", "--deep-experiment", "b"), r"--deep-experiment needs --experiment: name the"),
        (("report", "--runs", "r.yaml", "--study-run", "b"), r"--study-run needs --experiment"),
        (("decide", "--runs"), r"Option '--runs' requires an argument; see `fnostab decide --help`"),
        (("watch", "--experiment", "a"), r"give EXPERIMENT by itself, as in fnostab watch EXPERIMENT; see `fnostab w"),
        (("decide", "a", "--deep-study-run", "b"), r"--deep-study-run needs --deep-experiment"),
        (("decide", "--runs", "r.yaml", "--study", "s.yaml"), r"--study needs --table"),
        (("decide", "trials.csv"), r"trials.csv is a file: .*; tables go to `fnostab decide --table FILE"),
        (("report", "own.yaml"), r"own.yaml is a file: .*, or give --runs FILE.yaml; "),
        (("rnu",), r"No such command 'rnu' \(did you mean 'run'\?\)"),
        (("run", "stage_a", "--dryrun"), r"--dryrun has no value \(did you mean --dry-run\?\)"),
        (("run", "stage_a", "seeds=10"), r"unknown argument 'seeds=10': write --seeds 10; see `fnostab run --help`"),
        (("run", "seeds=10", "stage_a"), r"unknown argument 'seeds=10': write --seeds 10"),
        (("run", "stage_a", "lr=10"), r"unknown argument 'lr=10': write --lr 10"),
        (("run", "stage_a", "-seeds", "3"), r"unknown argument '-seeds' \(did you mean --seeds\?\)"),
        (("run", "stage_a", "10"), r"unknown argument '10'; a setting is written --name VALUE"),
        (("run", "--seed", "3", "stage_a"), r"'seed' is not a setting \(did you mean --seeds\?\)"),
        (("run", "stage_a", "--set", "seeds=3"), r"'seeds' is not a setting \(did you mean --seeds\?\)"),
        (("run", "--lr", "3"), r"Missing argument 'STUDY'"),
        (("train", "stage_a", "--seeds", "3"), r"'seeds' is not a setting \(did you mean --seed\?\)"),
        (("activations", "--sede", "2"), r"'sede' is not a setting \(did you mean --seeds\?\)"),
        (("run", "stage_b", "--from", "nothing"), r"no experiment 'nothing'"),
        (("decide", "--experiment", "a", "--table", "t.csv"), r"give one of --experiment, --table and --runs"),
        (("decide",), r"no study is recorded in sqlite:///"),
        (("report",), r"no study is recorded in sqlite:///"),
    ],
)
def test_one_line_says_what_is_wrong(call, workplace, arguments, pattern):
    assert_refused(call(*arguments), pattern)
    assert statuses() == []
    assert not list(workplace.glob("outputs/stage_a"))


def test_a_group_without_a_command_shows_its_help(call):
    status, out, err = call("data")
    assert (status, out) == (2, "")
    assert err.startswith("Usage: fnostab data")


def test_the_process_ends_with_that_status_too(fnostab, workplace):
    ended = fnostab(workplace, *RUN, "--seeds", "banana")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert_refused((ended.returncode, ended.stdout, ended.stderr), "seeds='banana'")


def test_a_study_that_decides_on_the_phase_needs_one(call, workplace):
    (workplace / "mine.yaml").write_text(
        "{name: mine, description: d, control: c, arms: {c: {}}, task: ptychography, "
        "metric: {name: test/ssim_phase, higher_is_better: true, of: null}}"
    )
    assert_refused(call("run", "mine.yaml"), r"mine decides on test/ssim_phase, but arm c has data.set_phi=false")


@pytest.mark.parametrize("vary", ["[initialisation]", "[data]"])
def test_a_probe_file_that_is_none_is_refused(call, workplace, tiny, vary):
    Path("probe.npz").write_bytes(b"PK not really")
    given = ("--set", "data.probe.path=probe.npz", "--set", f"vary={vary}")
    assert_refused(call(*RUN, *tiny, *given), r"probe file .*probe.npz is not a readable NPZ archive.*numpy.savez")
    np.savez("probe.npz", probe=np.ones((9, 9), complex))
    assert_refused(call(*RUN, *tiny, *given), r"probe in .*probe.npz has shape \(9, 9\), expected \(16, 16\)")
    assert statuses() == []


def test_a_damaged_data_set_is_named_with_the_remedy(call, workplace, tiny):
    overrides = dict(assignment.split("=") for assignment in tiny[1::2])
    config = TrialConfig.from_dotted(load_study("stage_a", "small", overrides).arms["control"])
    prepare(config.data, config.data_seed(0), "outputs/datasets")
    (damaged,) = workplace.glob("outputs/datasets/*/train_amplitudes.npy")
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert_refused(call(*RUN, *tiny), rf"{damaged} is damaged.*delete {damaged.parent} to regenerate it")
    assert statuses() == []


def test_a_folder_in_place_of_a_file_and_the_other_way_round(call, workplace, tiny):
    Path("outputs").write_text("a file")
    assert_refused(call(*RUN, *tiny), r"'outputs' is a file")
    Path("outputs").unlink()
    Path("outputs/stage_a").mkdir(parents=True)
    Path("outputs/stage_a", load_hash(tiny)).write_text("a file")
    assert_refused(call(*RUN, *tiny), r"can't write .*stage_a.*choose another output folder")
    assert statuses() == []


def load_hash(tiny):
    return load_study("stage_a", "small", dict(assignment.split("=") for assignment in tiny[1::2])).hash


@pytest.fixture
def small_disk(workplace):
    """A function that mounts a disk of so many KiB; only root can."""
    mounted = []

    def mount(size_kib):
        folder = workplace / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)]
        if os.geteuid() or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a disk of its own can't be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_too_small_for_the_data_set(call, small_disk, tiny):
    disk = small_disk(64)
    answer = call(*RUN, *tiny, "--output", str(disk / "outputs"))
    assert_refused(answer, r"can't write data set .*: (No space left on device|.* written): free space")
    assert statuses() == []


def test_a_disk_that_cannot_be_written(call, small_disk, tiny):
    disk = small_disk(64)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert_refused(call(*RUN, *tiny, "--output", str(disk / "outputs")), r"can't write .*: Read-only file system")
    assert statuses() == []


def test_a_disk_that_fills_up_while_a_trial_runs_loses_nothing(call, small_disk, tiny, monkeypatch):
    monkeypatch.setattr(study_upload, "DRAIN_S", 1.0)
    disk = small_disk(4096)
    command = (*RUN, *tiny, "--output", str(disk / "outputs"))
    overrides = dict(assignment.split("=") for assignment in tiny[1::2])
    config = TrialConfig.from_dotted(load_study("stage_a", "small", overrides).arms["control"])
    prepare(config.data, config.data_seed(0), disk / "outputs" / "datasets")
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - 7 * 4096)  # a page for each file that a start needs

    status, _, err = call(*command)
    assert status == 2
    assert "Traceback" not in err
    assert re.fullmatch(r"error: .*No space left on device.*\n", err), err
    assert statuses()
    assert "RUNNING" not in statuses()

    ballast.unlink()
    assert call(*command)[0] == 0
    assert statuses() == ["FINISHED", "FINISHED"]
    store = open_store()
    experiment = store.client.get_experiment_by_name("stage_a").experiment_id
    (trial,) = store.client.search_runs([experiment], f"tags.`{names.KIND}` = '{names.KIND_TRIAL}'")
    steps = [m.step for m in store.client.get_metric_history(trial.info.run_id, names.GRAD_NORM)]
    assert steps == list(range(len(steps)))


def test_an_optimiser_of_ones_own_that_can_not_be_made_is_refused(call, workplace, monkeypatch):
    """Said before any trial starts, not by each of them."""
    (workplace / "fnostab_recurrent_net.py").write_text(
        "import torch\n\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, config):\n"
        "        super().__init__()\n"
        "        self.rows = torch.nn.LSTM(config.N, config.N, batch_first=True)\n\n"
        "    def forward(self, amplitudes):\n"
        "        rows = self.rows(amplitudes[:, 0])[0][:, None]\n"
        "        return torch.complex(rows, rows)\n"
    )
    monkeypatch.syspath_prepend(workplace)
    parts = {"model.architecture": "fnostab_recurrent_net.Net", "training.optimizer": "cure_parts.mup.adam"}
    settings = [part for name, value in parts.items() for part in ("--set", f"{name}={value}")]
    assert_refused(call(*RUN, *settings), r"which axis of rows\.weight_ih_l0, .* LSTM reads\? .*weight_input_dim")
    assert statuses() == []
