"""Environments for fault tests: directories with a store, servers that are restarted, and small disks."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fnostab.tracking import free_port, open_store, ui_command, wait_until_ready

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 420.0  # for one command
ABSENT_S = 1.0  # downtime of a killed server before it is restarted
DEFAULTS = {  # settings of a real trial of about two seconds
    "model.architecture": "faulty.Network",
    "model.hidden_channels": 4,
    "model.fno_blocks": 2,
    "model.fno_modes": 4,
    "data.N": 16,
    "data.object_size": 40,
    "data.n_lines": 20,
    "data.scan_stride_train": 1,
    "data.scan_stride_test": 4,
    "training.batch_size": 8,
    "training.epochs": 4,
    "training.learning_rate": 0.001,
    "execution.device": "cpu",
    "monitor.stagnated_detail": 1e-9,  # with so few steps no details are learnt
}


class Place:
    """Working directory with a store, in which `fnostab` commands are run as by a user.

    Args:
        folder: the directory, created if it does not exist.
        database: SQLAlchemy URL of the store's database; None for a new SQLite file in the folder.
        server: server through which the store is used; None to use the database directly.
    """

    def __init__(self, folder: Path, database: str | None = None, server: "Server | None" = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.database = database or f"sqlite:///{folder / 'mlflow.db'}"
        self.uri = server.url if server else self.database
        self.output = folder / "outputs"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "FAULT"))}
        paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
        self.environment = clean | {
            "PYTHONPATH": paths,
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "COLUMNS": "120",
        }
        if server:
            self.environment["FAULT_SERVER"] = str(server.pid_file)

    def write_study(self, name: str, arms: dict[str, dict[str, Any]], **defaults: Any) -> Path:
        """Write a study file; the first arm is the control."""
        path = self.folder / f"{name}.yaml"
        settings = DEFAULTS | defaults
        study = {
            "name": name,
            "task": "ptychography",
            "description": "faults",
            "control": next(iter(arms)),
            "arms": arms,
            "defaults": settings,
        }
        path.write_text(yaml.safe_dump(study))
        return path

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start ``fnostab ARGUMENTS``; with FAULT in ``environment``, inject that fault."""
        program = "faulty" if "FAULT" in environment else "fnostab"
        with open(self.folder / "commands.log", "ab") as log:
            log.write(f"\n$ {program} {' '.join(arguments)}\n".encode())
            log.flush()
            return subprocess.Popen(
                [sys.executable, "-m", program, *arguments],
                cwd=self.folder,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def call(self, *arguments: str, **environment: str) -> int:
        """Run ``fnostab ARGUMENTS`` as `start`, wait for it, and return its exit status."""
        process = self.start(*arguments, **environment)
        try:
            return process.wait(TIMEOUT_S)
        except BaseException:
            process.kill()
            raise


class Server:
    """Real `mlflow server` on a database, restarted whenever it dies.

    Args:
        database: URL of the database.
        folder: folder for its log and artifacts.
        port: first port to try.
    """

    def __init__(self, database: str, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.database, self.folder, self.pid_file = database, folder, folder / "pid.txt"
        self.port = free_port(port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts = 0
        self._command, self._environment = ui_command(open_store(database), self.port)
        self._leaving = threading.Event()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "Server":
        wait_until_ready(self.url, 120, self._process)
        self._keeper.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leaving.set()
        self._keeper.join()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.starts += 1
        with open(self.folder / "server.log", "ab") as log:
            process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid_file.write_text(str(process.pid))
        return process

    def _keep(self) -> None:
        while not self._leaving.wait(0.1):
            if self._process.poll() is not None:
                time.sleep(ABSENT_S)
                self._process = self._start()


def wait_for_server(place: Place) -> None:
    """Wait until the server of a place responds, if it has one."""
    if place.uri.startswith("http"):
        wait_until_ready(place.uri, 120)


def postgresql_programs() -> Path | None:
    """Folder of PostgreSQL's programs; None if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = str(found[-1]) if found else shutil.which("initdb")
    return Path(path).parent if path else None


@contextlib.contextmanager
def postgresql(port: int = 5543) -> Iterator[str]:
    """Context with a temporary PostgreSQL cluster of an unprivileged user; yields the URL of its database."""
    programs = postgresql_programs()
    if programs is None:
        raise FileNotFoundError("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="faults-postgresql-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "nobody")
        user = {"user": "nobody", "extra_groups": []}
    port = free_port(port)
    data, password = str(folder / "data"), secrets.token_hex(8)
    (folder / "password").write_text(password)
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **user}
    access = ["-U", "fnostab", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
    subprocess.run([programs / "initdb", "-D", data, *access], check=True, **options)
    flags = ["-D", data, "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    process = subprocess.Popen([programs / "postgres", *flags], **options)
    try:
        connect = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "fnostab", "mlflow"]
        deadline = time.monotonic() + 60
        known = os.environ | {"PGPASSWORD": password}
        while subprocess.run(connect, env=known, capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL does not start")
            time.sleep(0.3)
        yield f"postgresql://fnostab:{password}@127.0.0.1:{port}/mlflow"
    finally:
        process.send_signal(signal.SIGQUIT)  # immediate shutdown: nothing is kept
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int = 24) -> Iterator[bool]:
    """Context with a small disk mounted at ``folder``; yields False if it can't be mounted, which requires root."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
