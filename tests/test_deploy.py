"""The files of deploy/: they are what systemd and Compose take, and what they start exists with those options."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = sorted(DEPLOY.glob("*.service")) + sorted(DEPLOY.glob("*.timer"))
PASSWORDS = {"DATABASE_PASSWORD": "d" * 12, "ADMIN_PASSWORD": "a" * 12}


def unit(path):
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(path)
    return parser


def started():
    """Every command of this program in deploy/, with the file that it stands in."""
    for path in UNITS:
        if line := unit(path).get("Service", "ExecStart", fallback=None):
            yield path.name, shlex.split(line)
    yield "compose.yaml", shlex.split(compose()["services"]["server"]["command"])
    (line,) = re.findall(r"^CMD (.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    yield "Dockerfile", json.loads(line)


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.mark.parametrize(("name", "command"), list(started()))
def test_a_command_exists_with_its_options(name, command):
    program, subcommand, *arguments = command
    assert Path(program).name == "fnostab"
    import_module(f"fnostab.cli.{subcommand}").command.make_context(
        subcommand, [a for a in arguments if not a.startswith("/shared")] + ["."] * (subcommand == "sync")
    )
    if subcommand == "serve":
        assert "--auth" in arguments
        assert "--backend" not in arguments, "its password would be seen by everyone"


def test_a_server_is_reached_from_its_own_machine_only():
    assert compose()["services"]["server"]["ports"] == ["127.0.0.1:5000:5000"]
    assert "ports" not in compose()["services"]["database"]
    assert "--host 127.0.0.1" in unit(DEPLOY / "fnostab-server.service")["Service"]["ExecStart"]


@pytest.mark.parametrize("path", [*UNITS, DEPLOY / "compose.yaml", DEPLOY / "Dockerfile"], ids=lambda path: path.name)
def test_what_was_not_run_says_so(path):
    assert re.search("not (run|built) here", path.read_text().replace("\n# ", " "), re.IGNORECASE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path):
    for path in UNITS:  # with a program that exists here
        text = path.read_text().replace("/opt/fnostab/bin/fnostab", "/bin/true")
        (tmp_path / path.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *(p.name for p in UNITS)]
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    about_ours = [line for line in answer.stderr.splitlines() if "fnostab" in line]
    assert (answer.returncode, about_ours) == (0, [])


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose")
def test_compose_takes_the_file():
    command = ["docker-compose", "--file", str(DEPLOY / "compose.yaml"), "config"]
    answer = subprocess.run(command, env=os.environ | PASSWORDS, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    server = yaml.safe_load(answer.stdout)["services"]["server"]
    assert server["environment"]["MLFLOW_BACKEND_STORE_URI"] == "postgresql://mlflow:dddddddddddd@database:5432/mlflow"
    refused = subprocess.run(command, env=os.environ | {"ADMIN_PASSWORD": "a"}, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "set it in deploy/.env" in refused.stderr
