"""Fixtures of several folders: an empty MLflow database, and the command line as a user calls it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from ports import unused_port
from tiny import TINY

from fnostab.tracking.environment import OWN, settle

ROOT = Path(__file__).parent.parent


# As launchers start trials, and before torch is imported: sums over another number of threads differ in the last bit.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

if "PYTEST_XDIST_WORKER" in os.environ:  # these are of the process that started this one, not of a user
    for name in OWN:
        os.environ.pop(name, None)
settle()  # as the command line does, so that what is tested in this process is as impatient

# Machines are shared: how long an example takes is no property of the code. The same examples every time.
hypothesis.settings.register_profile(
    "shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.load_profile("shared")

# A shell in the background ignores Ctrl-C, nohup the end of a terminal: here and in every process started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Tests that take minutes, or share what can be there only once: the group that one process runs, the longest first.
GROUPS = {
    "test_docs.py": "documentation",
    "test_end_to_end.py": "project",
    "test_installed.py": "project",
    "test_slurm.py": "slurm",
    "test_slurm_faults.py": "slurm",
    "test_slurm_study.py": "slurm",
    "same_as": "same_as",
    "test_faults.py": "faults",
}


def group(file):
    """Name of the group of a file of tests, given from the project's root; most files are one by themselves."""
    return next((name for part, name in GROUPS.items() if part in Path(file).parts), str(file))


def pytest_collection_modifyitems(items):
    """The groups that take minutes first."""
    place = {name: place for place, name in enumerate(dict.fromkeys(GROUPS.values()))}
    items.sort(key=lambda item: place.get(group(item.path.relative_to(ROOT)), len(place)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Side by side (`make test`), one process runs a whole group. Marks would do, but xdist 3.8 misses late ones."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid.partition("::")[0])

    return Groups(config, log)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow takes seconds to make its tables: do it once, and copy the file."""
    from fnostab.tracking import open_store

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    open_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql():
    """A real PostgreSQL that ends with the tests: the address of an empty database, whose user may make others."""
    from benchmarks import fault_places

    if fault_places.postgresql_programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="needs the extra postgresql")
    with fault_places.postgresql(unused_port(7000)) as address:
        yield address


@pytest.fixture(scope="session")
def real_server(empty_database, tmp_path_factory):
    """Address of a real MLflow server, which many tests share: each has experiments of its own."""
    from fnostab.tracking import open_store, ui_command, wait_until_ready

    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    command, environment = ui_command(open_store(f"sqlite:///{folder}/mlflow.db"), port := unused_port())
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_ready(url := f"http://127.0.0.1:{port}", 240, server)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def browser():
    """A real Chromium. Its driver runs an event loop in this thread, so it ends with a module's tests."""
    if (program := shutil.which("chromium")) is None:
        pytest.skip("there is no chromium: install Debian's package `chromium`")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is part of the dev extra")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def tiny_settings():
    """Settings with which a trial trains in a second."""
    return TINY


@pytest.fixture(scope="session")
def tiny():
    """The same settings as arguments: ``--set data.N=16 ...``."""
    return [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture
def workplace(empty_database, tmp_path, monkeypatch):
    """An empty directory to work in, but for MLflow's database."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def environment():
    """Of a process that a user starts: this Python comes first on PATH, and MLflow is not configured."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    return clean | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def fnostab(environment):
    """``fnostab ARGUMENTS`` in a process of its own: a function of the directory and the arguments."""

    def run(directory, *arguments, **more):
        return subprocess.run(
            [sys.executable, "-m", "fnostab", *arguments],
            cwd=directory,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def call(capfd):
    """The same in this process, which need not import torch and MLflow again: (status, stdout, stderr)."""
    from fnostab.cli import main

    def run(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        out, err = capfd.readouterr()
        return end.value.code, out, err

    return run
