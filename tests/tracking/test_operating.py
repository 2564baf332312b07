"""docs/operating.md: its commands, run as they stand, in the life of a server."""

import http.server
import re
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tracking_helpers import StudyFolder, journal_points, only_trial, runs_of_kind, serving, stored_points, write_trial

from fnostab.record import names
from fnostab.tracking import open_store, sync

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()
ADA = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "hers-and-nobody-elses"}


def shown(title, port=5000):
    """A block of the page, with the test's port."""
    (block,) = re.findall(rf'```\w+ title="{title}"\n(.*?)```', PAGE, re.DOTALL)
    return block.replace("5000", str(port))


def typed(title, folder, environment, program=("bash", "-ec"), port=5000):
    command = [*program, shown(title, port)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def started(folder, environment, *more, first=False):
    """The server of the page's first block: its exports only where it is started for the first time."""
    exports = dict(re.findall(r"^export (\w+)=(.+)$", shown("start"), re.MULTILINE))
    (options,) = re.findall(r"^fnostab serve (.+) --port 5000$", shown("start"), re.MULTILINE)
    return serving(folder, environment, *options.split(), *more, **(exports if first else {}))


class PrefixProxy(http.server.BaseHTTPRequestHandler):
    """Takes the prefix /mlflow off, and hands on the Host header that it was asked with, as the page's nginx does."""

    target = ""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items()) | {"Host": "example.org"}
        path = self.path.removeprefix("/mlflow")
        assert path != self.path
        asked = urllib.request.Request(self.target + path, body or None, headers, method=self.command)
        try:
            reply = urllib.request.urlopen(asked, timeout=60)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            content = reply.read()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def prefixed():
    """A function that starts such a proxy before a server, and returns the address that users set."""
    proxies = []

    def start(target):
        handler = type("Handler", (PrefixProxy,), {"target": target})
        proxies.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=proxies[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{proxies[-1].server_port}/mlflow"

    yield start
    for proxy in proxies:
        proxy.shutdown()
        proxy.server_close()


@pytest.mark.slow
def test_the_life_of_a_server(tmp_path, environment, monkeypatch, prefixed):
    pytest.importorskip("flask_wtf")
    (tmp_path / "mlflow-server").mkdir(mode=0o755)
    study = StudyFolder(tmp_path / "out")
    first, second = study.trial(seed=0), study.trial(seed=1)
    write_trial(first)
    with started(tmp_path, environment, first=True) as (_, port):
        assert stat.S_IMODE((tmp_path / "mlflow-server").stat().st_mode) == 0o700  # it was there before
        typed("users", tmp_path, environment, (sys.executable, "-c"), port)
        for name, value in ADA.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"http://127.0.0.1:{port}")
        sync(first, store)
        assert only_trial(store).data.tags[names.USER] == "ada"
        typed("backup", tmp_path, environment)
        write_trial(second)
        sync(second, store)
    typed("restore", tmp_path, environment)
    # Neither the administrator's name nor the password is given
    with started(tmp_path, environment, "--allowed-hosts", "example.org") as (_, port):
        store = open_store(prefixed(f"http://127.0.0.1:{port}"))
        assert only_trial(store).data.tags[names.SEED] == "0"
        sync(study.folder, store)
        runs = {run.data.tags[names.SEED]: run for run in runs_of_kind(store, names.KIND_TRIAL)}
        for seed, directory in (("0", first), ("1", second)):
            assert stored_points(store, runs[seed]) == journal_points(directory)
        (parent,) = runs_of_kind(store, names.KIND_STUDY)
        assert Path(store.client.download_artifacts(parent.info.run_id, "study.json")).read_bytes()
    typed("upgrade", tmp_path, environment)
