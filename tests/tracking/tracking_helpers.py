"""Studies as trial processes leave them on disk, and what a store holds of them."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

from ports import unused_port
from trial_records import study_spec, trial_of

from fnostab.record import names
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import Point
from fnostab.tracking import ui_command, wait_until_ready

READY_S = 240
DEAD = f"99999999@{socket.gethostname()}"  # an owner that can't be alive


class StudyFolder:
    """A study on disk, with trials as their processes would leave them."""

    def __init__(self, folder: Path, experiment: str = "stage_a", hash: str = "5eed") -> None:
        self.folder = folder / experiment / hash
        self.spec = study_spec(
            {"control": {"model.fno_blocks": 3}, "agc": {"execution.gradient_clip_val": 0.01}},
            hash=hash,
            experiment=experiment,
            description="Does **zero_gamma** train?",
            roles={"clipping": "agc"},
        )
        self.spec.write(self.folder / "study.json")

    def trial(self, arm: str = "control", seed: int = 0) -> Path:
        """Directory of a new trial, with trial.json and no journal."""
        directory = self.folder / f"{arm}-{seed}"
        trial_of(self.spec, arm, seed).write(directory / "trial.json")
        return directory


def write_trial(directory, steps=range(30), outcome="converged", owner=DEAD, **last_values):
    """Journal of an attempt: three metrics by step, last values, an outcome unless it is None."""
    with Journal(directory) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: owner, names.DEVICE: "cpu"})
        journal.event(names.PARAMS_EVENT, {"model.fno_blocks": 3, "execution.gradient_clip_val": None})
        for step in steps:
            journal.record(step, {"train/loss": 1 / (step + 1), "grad_norm/total": 0.1 * step, "lr": 1e-3})
        if last_values:
            journal.record(steps[-1], last_values)
        if outcome is not None:
            write_outcome(journal, outcome)


def write_outcome(journal, outcome, **evidence):
    empty = {"failure_step": None, "known_good_step": None, "rules_held": [], "not_judged": [], "reason": None}
    journal.event(names.OUTCOME_EVENT, {"outcome": outcome} | empty | evidence)


def journal_points(directory):
    """{metric: [(step, value, time)]} of a journal, finite values only."""
    points = {}
    for record, _ in read_journal(directory / "journal.jsonl"):
        if isinstance(record, Point):
            for name, value in record.values.items():
                points.setdefault(name, []).append((record.step, value, record.time_ms))
    return points


def stored_points(store, run):
    """The same of a run in MLflow, with every row of its histories."""
    return {
        name: sorted((m.step, m.value, m.timestamp) for m in store.client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def copy_database(source, target):
    """Copy a SQLite database, as a backup or back from one, whoever has it open."""
    with closing(sqlite3.connect(source)) as there, closing(sqlite3.connect(target)) as here:
        there.backup(here)


def marked(folder, name=""):
    """Whether the SQLite store in a folder has begun to take the journal of a run whose name begins so."""
    query = "SELECT name FROM runs JOIN tags USING (run_uuid) WHERE key = ? AND name LIKE ?"
    with closing(sqlite3.connect(f"file:{folder}/mlflow.db?mode=ro", uri=True, timeout=30)) as connection:
        return bool(connection.execute(query, (names.SENT, f"{name}%")).fetchall())


def mark_of(store):
    """What the only trial's run says of how far it has its journal."""
    return only_trial(store).data.tags[names.SENT]


def runs_of_kind(store, kind, experiment="stage_a"):
    found = store.client.get_experiment_by_name(experiment)
    return store.client.search_runs([found.experiment_id], f"tags.`{names.KIND}` = '{kind}'") if found else []


def only_trial(store, experiment="stage_a"):
    (run,) = runs_of_kind(store, names.KIND_TRIAL, experiment)
    return run


@contextmanager
def serving(folder, environment, *options, **more):
    """`fnostab serve` as a process of its own in ``folder``, once it answers: (process, port).

    What it prints goes to printed.txt there.
    """
    port, printed = unused_port(), folder / "printed.txt"
    command = [sys.executable, "-m", "fnostab", "serve", "--port", str(port), "--workers", "2", *options]
    with open(printed, "wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment | more, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + READY_S
        while "Ctrl-C" not in printed.read_text():
            assert process.poll() is None, printed.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process, port
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


class Server:
    """A real `mlflow server` on loopback that can be killed and started again."""

    def __init__(self, store, folder):
        self.port = unused_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (self._command, self._environment), self._folder = ui_command(store, self.port), folder

    def start(self):
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until_ready(self.url, READY_S, self._process)

    def kill(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
