"""Two processes on a CPU (gloo): what one leaves out all leave out, and the main process knows the outcome."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fnostab.errors import ConfigError
from fnostab.monitor.ranks import refuse_sharded

SCRIPT = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader
from lightning import Trainer
from small_module import NAN, Small
from fnostab.monitor import StabilityMonitor

class Sink:
    def __init__(self, path):
        self.path = path
    def record(self, step, values):
        self.write(["point", step, {k: repr(v) for k, v in values.items()}])
    def event(self, name, payload):
        self.write(["event", name, payload])
    def write(self, what):
        with open(self.path, "a") as file:
            file.write(json.dumps(what) + "\\n")

def say(what):
    os.write(1, (json.dumps(what) + "\\n").encode())  # in one piece: two processes speak at once

def plain(parameters):
    return torch.optim.Adam(parameters, 0.01)

def fused(parameters):
    return torch.optim.Adam(parameters, 0.01, fused=True)

class Both(Small):
    def __init__(self, case):
        super().__init__(plain if case == "plain" else fused)
        self.case = case
    def compute_loss(self, batch):
        loss = super().compute_loss(batch)
        here = self.global_rank == 1 and self.batches == 5
        if here and self.case == "loss":
            loss = loss + NAN  # its gradient is finite
        if here and self.case in ("gradient", "plain", "stopped"):
            loss = loss * NAN
        if self.case == "apart":
            return loss + 100 * (self.batches > 9 if self.global_rank == 1 else self.batches < 9)
        if self.case == "infra" and self.batches == 5:
            raise ValueError("mine")
        if self.case == "one" and self.global_rank == 1:
            loss = loss * (NAN if self.batches == 5 else 1)
            if self.batches == 17:
                raise ValueError("mine alone")
        return loss
    def validation_step(self, batch, batch_idx):
        if self.case == "validation":  # not synchronised: each process has its own, and the first one's is finite
            bad = self.global_rank == 1 and self.current_epoch == 1
            self.log("val_loss", torch.tensor(NAN if bad else 1.0))
    def on_train_end(self):
        flat = self.flat()
        both = [torch.zeros_like(flat) for _ in range(2)]
        distributed.all_gather(both, flat)
        seen = {"equal": torch.equal(*both), "finite": bool(flat.isfinite().all()), "steps": self.trainer.global_step}
        say({"case": self.case, "rank": self.global_rank, **seen})

def train(strategy, case, after):
    monitor = StabilityMonitor(Sink(f"{case}.jsonl"), block_steps=4, after_failure=after)
    trainer = Trainer(accelerator="cpu", devices=2, strategy=strategy, max_epochs=3, callbacks=[monitor], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0)
    torch.manual_seed(0)  # the same data in both processes
    data = DataLoader(torch.randn(40, 3), batch_size=2)
    try:
        trainer.fit(Both(case), data, DataLoader(torch.randn(4, 3), batch_size=2))
    except Exception as error:
        print(type(error).__name__, flush=True)
    told = {"main": str(monitor.outcome), "step": monitor.failure_step, "nonfinite": monitor.first_nonfinite_step}
    say({"case": case, **told})

if __name__ == "__main__":
    for each in sys.argv[3:]:
        train(sys.argv[2], *each.split("-"))
"""


def quiet_port():
    """A port for the processes to meet at, which no connection of another program is given until they do."""
    for port in range(20_000 + os.getpid() % 5_000, 32_000):  # below those that Linux gives to connections
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return str(port)
    raise AssertionError("no port is free")


def run(folder, strategy, *cases, processes=1):
    """By case: what the main process learnt, what each process printed, what was recorded."""
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", Path(__file__).parent, strategy, *cases]
    environment = os.environ | {"MASTER_PORT": quiet_port()}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, cwd=folder, env=environment
    )
    return read(folder, done.stdout, done.stderr, cases, processes)


def read(folder, stdout, stderr, cases, processes):
    printed = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    found = {}
    for case in (each.partition("-")[0] for each in cases):
        told = [line for line in printed if line["case"] == case]
        main = [(line["main"], line["step"], line["nonfinite"]) for line in told if "main" in line]
        assert main == main[:1] * processes, stderr[-3000:]  # of every process that runs the script
        sink = folder / f"{case}.jsonl"
        lines = sink.read_text().splitlines() if sink.exists() else []
        found[case] = (main[0], [line for line in told if "rank" in line], [json.loads(line) for line in lines])
    return found


CASES = ("loss-continue", "gradient-continue", "plain-continue", "stopped-stop", "validation-stop", "healthy-stop")


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    return run(tmp_path_factory.mktemp("forked"), "ddp_fork", *CASES, "infra-stop", "one-continue")


@pytest.mark.parametrize("case", ["loss", "gradient", "plain"])
def test_a_step_that_is_bad_in_one_process_is_left_out_in_all(forked, case):
    main, ends, lines = forked[case]
    assert [(end["equal"], end["finite"], end["steps"]) for end in ends] == [(True, True, 30)] * 2
    assert main == ("nonfinite", 5, 5)
    steps = [step for kind, step, values in lines if kind == "point" and "train/loss" in values]
    assert steps == list(range(30))  # one process writes
    (event,) = [payload for kind, name, payload in lines if kind == "event" and name == "nonfinite"]
    assert event["step"] == 5
    assert event["where"] == (["another process"] if case == "loss" else ["gradient"])


@pytest.mark.parametrize(("case", "steps"), [("stopped", 8), ("validation", 20)])
def test_the_decision_to_stop_is_that_of_all(forked, case, steps):
    """Else the process that goes on would wait for ever for the others."""
    _, ends, _ = forked[case]
    assert [end["steps"] for end in ends] == [steps] * 2


def test_a_script_under_plain_ddp_starts_itself_twice_and_both_know_the_outcome(tmp_path):
    """Lightning starts ``python script.py`` a second time: each process has a monitor, the first one writes."""
    found = run(tmp_path, "ddp", "gradient-continue", "stopped-stop", "healthy-stop", "apart-stop", processes=2)
    told = {"gradient": ("nonfinite", 5, 5), "stopped": ("nonfinite", 5, 5), "healthy": ("converged", None, None)}
    told["apart"] = told["healthy"]  # the loss of the second process rises, that of the first one falls
    for case, steps in (("gradient", 30), ("stopped", 8), ("healthy", 30), ("apart", 30)):
        main, ends, lines = found[case]
        assert main == told[case]
        assert [(end["equal"], end["finite"], end["steps"]) for end in ends] == [(True, True, steps)] * 2
        assert [step for kind, step, values in lines if kind == "point" and "train/loss" in values] == [*range(steps)]


def test_processes_that_torchrun_started(tmp_path):
    """It starts both, and tells them by the environment who they are."""
    (tmp_path / "script.py").write_text(SCRIPT)
    cases = ("stopped-stop", "plain-continue", "validation-stop")
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": quiet_port(), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    told |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    started = [
        subprocess.Popen(
            [sys.executable, "script.py", Path(__file__).parent, "ddp", *cases],
            env={**os.environ, **told, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    found = read(tmp_path, "".join(out for out, _ in said), "".join(err for _, err in said), cases, 2)
    told = {"stopped": ("nonfinite", 5, 5), "plain": ("nonfinite", 5, 5), "validation": ("nonfinite", 19, None)}
    for case, steps in (("stopped", 8), ("plain", 30), ("validation", 20)):
        seen, ends, lines = found[case]
        assert seen == told[case]
        assert [(end["equal"], end["finite"], end["steps"]) for end in ends] == [(True, True, steps)] * 2
        assert [step for kind, step, values in lines if kind == "point" and "train/loss" in values] == [*range(steps)]


def test_the_main_process_knows_the_outcome_of_processes_that_were_spawned(tmp_path):
    main, ends, _ = run(tmp_path, "ddp_spawn", "gradient-continue")["gradient"]
    assert main == ("nonfinite", 5, 5)
    assert all(end["equal"] for end in ends)


def test_the_main_process_knows_how_forked_ones_ended(forked):
    assert forked["healthy"][0] == ("converged", None, None)
    assert forked["infra"][0] == ("infra_error", None, None)
    assert forked["validation"][0] == ("nonfinite", 19, None)


def test_a_nonfinite_step_that_was_seen_wins_over_another_process_that_raised(forked):
    """The one that saw it is ended, and can't say so any more."""
    main, ends, lines = forked["one"]
    assert (main, ends) == (("nonfinite", 5, 5), [])
    tags = [payload for kind, name, payload in lines if kind == "event" and name == "tags"]
    assert {tag["fnostab.outcome"] for tag in tags} == {"nonfinite"}
    # or what the one that records says of the connection that it lost thereby, if both had died when torch looked
    assert tags[-1]["fnostab.reason"].startswith("ProcessRaisedException: ")


def test_sharded_gradients_are_refused_in_one_line():
    FSDPStrategy = type("FSDPStrategy", (), {})

    with pytest.raises(ConfigError, match="such as 'ddp', got FSDPStrategy"):
        refuse_sharded(SimpleNamespace(strategy=FSDPStrategy()))
    with pytest.raises(ConfigError, match="got Ours"):
        refuse_sharded(SimpleNamespace(strategy=type("Ours", (FSDPStrategy,), {})()))
