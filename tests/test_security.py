"""The promises of docs/security.md, threat by threat."""

import ast
import csv
import logging
import re
from pathlib import Path

import pytest

from fnostab.cli.ui import command as ui
from fnostab.errors import ConfigError, DecisionError
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.outcomes import Outcome
from fnostab.record.table import Table, TrialRow
from fnostab.record.table_file import write_table
from fnostab.report.documents import environment
from fnostab.serve.settings import ServerSettings
from fnostab.study.study import load_study
from fnostab.tracking import Store, open_store, ui_command
from fnostab.tracking.store.errors import masked
from fnostab.tracking.upload.follower import Follower
from fnostab.tracking.upload.identity import LiveRun

ROOT = Path(__file__).parent.parent
DANGEROUS = {"eval", "exec", "compile", "__import__"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(tree):
    """Dotted name of each call, with the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_true(call, argument):
    return any(each.arg == argument and ast.unparse(each.value) != "False" for each in call.keywords)


@pytest.mark.parametrize("path", sorted(ROOT.glob("fnostab/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_is_run(path):
    tree = ast.parse(path.read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & UNPICKLERS
    for name, call in calls(tree):
        assert name not in DANGEROUS, f"line {call.lineno}"
        assert not is_true(call, "shell"), f"line {call.lineno}"
        assert name not in {"os.system", "os.popen", "torch.load", "yaml.unsafe_load", "yaml.full_load"}, call.lineno
        if name in {"np.load", "numpy.load"}:
            assert "allow_pickle" in {each.arg for each in call.keywords}
            assert not is_true(call, "allow_pickle")
        if name == "yaml.load":
            assert path.name == "settings.py"
            assert ast.unparse(call.args[1]) == "_Loader"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:s3cret@host:5000", "http://ada:***@host:5000"),
        ("https://ada:s3/cr@et@host", "https://ada:***@host"),
        ("https://s3cret@host", "https://***@host"),
        ("ada:s3cret@host", "ada:***@host"),
        ("postgresql://host/db?user=ada&password=s3cret&x=1", "postgresql://host/db?user=ada&password=***&x=1"),
        ("no answer from http://ada:s3cret@host, again", "no answer from http://ada:***@host, again"),
        ("http://host:5000/#/experiments/1", "http://host:5000/#/experiments/1"),
    ],
)
def test_what_is_shown_of_an_address(text, shown):
    assert masked(text) == shown


@pytest.mark.parametrize(
    "uri", ["http://ada:s3cret@127.0.0.1:1", "ada:s3cret@host", "postgresql://ada:s3cret@127.0.0.1:1/x"]
)
@pytest.mark.parametrize(
    "command",
    [
        ("decide", "--experiment", "x"),
        ("sync", "outputs"),
        ("export", "x.csv", "--experiment", "x"),
        ("ui",),
        ("prune", "--older-than", "1d"),
    ],
    ids=lambda command: command[0],
)
def test_no_command_shows_the_password(call, workplace, monkeypatch, caplog, uri, command):
    caplog.set_level(logging.DEBUG)
    Path("outputs").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    status, out, err = call(*command)
    assert status == 2
    assert "s3cret" not in out + err + caplog.text
    assert not [p for p in workplace.rglob("*") if p.is_file() and b"s3cret" in p.read_bytes()]


def journal_of(directory, path, artifact_path=None):
    """A run's directory whose journal announces an artifact."""
    directory.mkdir(parents=True)
    LiveRun("mine", "run", "5eed").write(directory)
    with Journal(directory) as journal:
        journal.event(names.ARTIFACT_EVENT, {"path": path, "artifact_path": artifact_path})
    return directory


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/hostname", "link", "folder", "artifacts/../../secret.txt"])
def test_an_artifact_from_outside_its_trial_is_not_sent(workplace, path):
    directory = workplace / "trial"
    (workplace / "secret.txt").write_text("secret")
    journal_of(directory, path)
    (directory / "link").symlink_to(workplace / "secret.txt")
    (directory / "folder" / "below").mkdir(parents=True)
    (directory / "folder" / "below" / "link").symlink_to(workplace / "secret.txt")
    follower = Follower(open_store(), directory)
    follower.send()
    (line,) = follower.left_out
    assert "lies outside the trial's directory" in line
    assert not list(workplace.rglob("mlruns/**/secret.txt"))


@pytest.mark.parametrize("name", ["a/b", "../a", "/a", ".", "..", "-a", "a\nb", "<script>", "=1+1"])
def test_a_name_that_is_a_path_or_code_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="experiment="):
        load_study("stage_a", "small").spec(name)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_table_holds_no_formulas(tmp_path, name):
    with pytest.raises(DecisionError, match="a spreadsheet would take it for a formula"):
        write_table(tmp_path / "t.csv", Table({"a": [TrialRow(name, 0, Outcome.CONVERGED, 0.1)]}))
    write_table(tmp_path / "t.csv", Table({"a": [TrialRow("control", 0, Outcome.CONVERGED, 0.1)]}))
    for row in csv.reader((tmp_path / "t.csv").open()):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)


def test_names_in_a_report_are_text():
    of_reports = environment()
    assert of_reports.autoescape("report.html.j2")
    template = (ROOT / "fnostab/report/templates/report.html.j2").read_text()
    unescaped = re.findall(r"{{[^}]*\|\s*safe[^}]*}}", template)
    assert all("element" in each for each in unescaped), "only pictures that this program drew"
    page = of_reports.from_string("{{ name | md }}").render(name="<script>x</script> [a](b) | c")
    assert "<script" not in page
    assert "\\[a]" in page
    assert "\\|" in page


def test_servers_listen_on_loopback_unless_told():
    assert ServerSettings(Path("s")).host == "127.0.0.1"
    assert "host" not in {parameter.name for parameter in ui.params}


def test_the_page_of_a_store_hides_its_password():
    store = Store("postgresql://me:s3cret@db/runs", None)
    command, environment = ui_command(store, 5000)
    assert "s3cret" not in " ".join(command)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == store.uri
