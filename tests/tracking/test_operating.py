"""docs/operating.md: its commands, run as they stand, in the life of a server."""

import contextlib
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tracking_helpers import StudyFolder, journal_points, only_trial, runs_of_kind, serving, stored_points, write_trial

from fnostab.record import names
from fnostab.tracking import open_store, sync

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
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


NAME = "127.0.0.2"  # stands for the page's: a name that every Linux machine reaches itself by
TRAIN = """
import sys
from pathlib import Path
from fnostab.recorder import Recorder
with Recorder() as rec:
    rec.scheduled(20)
    for step in range(20):
        rec.step(step, loss=float(sys.argv[1]) / (step + 1 + int(sys.argv[2])))
Path(sys.argv[3], "large.txt").write_text("x" * 2_000_000)  # nginx by itself takes 1 MB
"""
STUDY = """
name: behind
description: Is it seen through a proxy?
command: python train.py {rate} {seed} {directory}
defaults: {rate: 1.0}
control: control
arms: {control: {}, other: {rate: 2.0}}
"""


@contextlib.contextmanager
def nginx(folder, port, of_server):
    """nginx with the page's server, and its location for a prefix besides: the file of its certificate."""
    certificate, key = folder / "mlflow.pem", folder / "mlflow.key"
    itself = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    itself += ["-addext", f"subjectAltName=IP:{NAME}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(itself, check=True, capture_output=True)
    server, end = shown("mlflow.conf", of_server).rstrip().rsplit("}", 1)
    text = f"{server}{shown('prefix', of_server)}}}{end}".replace("/etc/ssl/", f"{folder}/")
    text = text.replace("mlflow.example.org", NAME).replace("listen 443", f"listen {NAME}:{port}")
    temporary = "".join(f"{name}_temp_path {name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    as_who = "user root; " if os.getuid() == 0 else ""  # else its workers can't enter the test's folder
    whole = f"{as_who}daemon off; pid nginx.pid; events {{}} http {{ access_log access.log; {temporary} {text} }}"
    (folder / "nginx.conf").write_text(whole)
    command = [NGINX, "-p", str(folder), "-e", "error.log", "-c", "nginx.conf"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while socket.socket().connect_ex((NAME, port)):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        yield certificate
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.slow
@pytest.mark.skipif(
    not (NGINX and shutil.which("openssl")), reason="needs nginx and openssl: apt-get install nginx-light"
)
def test_a_study_through_nginx_with_tls_and_a_prefix(tmp_path, environment, fnostab):
    with socket.socket() as free:
        free.bind((NAME, 0))
        port = free.getsockname()[1]
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "study.yaml").write_text(STUDY)
    url = f"https://{NAME}:{port}/mlflow"
    with (
        serving(tmp_path, environment, "--allowed-hosts", f"{NAME}:{port}") as (_, of_server),
        nginx(tmp_path, port, of_server) as certificate,
    ):
        run = ("run", "study.yaml", "--seeds", "1", "--tracking-uri", url)
        unknown = fnostab(tmp_path, *run)
        assert unknown.returncode == 2
        assert "self-signed certificate; set REQUESTS_CA_BUNDLE to the file" in unknown.stderr
        done = fnostab(tmp_path, *run, REQUESTS_CA_BUNDLE=str(certificate))
        assert done.returncode == 0, done.stdout + done.stderr
        links = re.findall(r"https?://\S+", done.stdout)
        assert links
        assert all(link.startswith(f"{url}/#/experiments") or link == url for link in links), links
        assert len(list((tmp_path / "mlflow-server" / "artifacts").rglob("large.txt"))) == 2
        trusted = ssl.create_default_context(cafile=certificate)

        def page(address, **headers):
            asked = urllib.request.Request(address, b'{"max_results": 1}' if headers else None, headers)
            with urllib.request.urlopen(asked, timeout=60, context=trusted) as answer:
                return answer.read().decode()

        for below in (f"{url}/", f"https://{NAME}:{port}/"):  # the page without a prefix has one of its own
            (script,) = re.findall(r'src="(static-files/[^"]+/main[^"]+)"', page(below))
            assert len(page(below + script)) > 10_000
        search = f"{url}/api/2.0/mlflow/experiments/search"
        assert page(search, Origin=f"https://{NAME}:{port}", **{"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            page(search, Origin="https://localhost:9999", **{"Content-Type": "application/json"})


@pytest.mark.slow
def test_the_life_of_a_server(tmp_path, environment, monkeypatch):
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
    with started(tmp_path, environment) as (_, port):
        store = open_store(f"http://127.0.0.1:{port}")
        assert only_trial(store).data.tags[names.SEED] == "0"
        sync(study.folder, store)
        runs = {run.data.tags[names.SEED]: run for run in runs_of_kind(store, names.KIND_TRIAL)}
        for seed, directory in (("0", first), ("1", second)):
            assert stored_points(store, runs[seed]) == journal_points(directory)
        (parent,) = runs_of_kind(store, names.KIND_STUDY)
        assert Path(store.client.download_artifacts(parent.info.run_id, "study.json")).read_bytes()
    typed("upgrade", tmp_path, environment)
