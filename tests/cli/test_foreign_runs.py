"""`export --runs` and `report --runs`: runs of another program, from MLflow and from a table."""

import hashlib
import json
import math
import re
from pathlib import Path

import pytest

from fnostab.cli.decide_runs import judge_runs
from fnostab.report.evidence import gather_of_runs
from fnostab.tracking import open_store

MAPPING = """\
experiments: theirs
control: base
arm: params.model
seed: tags.seed
metric: metrics.return
higher_is_better: true
margin: 5
measures: {metrics.speed: {margin: 0.1}}
failed: {below: {metrics.return: -600}}
excluded: {status: FAILED}
"""
NOT_THE_SOURCE = ("answers", "arms", "criteria", "trials", "reason", "look", "headline", "supported")


@pytest.fixture
def theirs(workplace):
    """Eight seeds of two arms in MLflow: returns over the steps, some far down, one run broken, one without a seed."""
    client = open_store(f"sqlite:///{workplace}/mlflow.db").client
    experiment = client.create_experiment("theirs")
    for model, bad in (("norm", 0), ("base", 6)):
        for seed in range(8):
            run = client.create_run(experiment, tags={"seed": str(seed)}).info.run_id
            client.log_param(run, "model", model)
            last = -900 if seed < bad else -100 - seed
            for step in range(0, 50, 10):
                client.log_metric(run, "return", last - 40 + step, step=step)
            client.log_metric(run, "speed", 2.0 + seed / 100)
            client.set_terminated(run, "FAILED" if (model, seed) == ("norm", 7) else "FINISHED")
    client.log_param(client.create_run(experiment).info.run_id, "model", "base")
    Path("runs.yaml").write_text(MAPPING)
    return client


def answer(call, *arguments):
    code, out, err = call("decide", *arguments, "--json")
    assert code == 0, err
    return {name: value for name, value in json.loads(out).items() if name in NOT_THE_SOURCE}


def test_a_table_of_the_runs_says_what_they_say(theirs, call):
    said = answer(call, "--runs", "runs.yaml")
    assert [(a["arm"], a["name"]) for a in said["answers"]] == [("norm", "helps")]
    assert [(s["arm"], s["left_out"]) for s in said["arms"]] == [("base", {}), ("norm", {"infra_error": [7]})]
    assert call("export", "t.csv", "--runs", "runs.yaml")[1] == "16 trials written to t.csv\n"
    assert answer(call, "--table", "t.csv") == said


def test_not_judged_stays_so_in_a_table(theirs, call):
    Path("runs.yaml").write_text(re.sub("failed:.*\n", "", MAPPING))
    said = answer(call, "--runs", "runs.yaml")
    assert "failure not judged" in said["answers"][0]["sentence"]
    call("export", "t.csv", "--runs", "runs.yaml")
    assert answer(call, "--table", "t.csv") == said


def test_a_name_that_no_run_has_is_refused_with_those_that_there_are(theirs, call):
    Path("runs.yaml").write_text(MAPPING.replace("metrics.return\n", "metrics.reward\n"))
    code, _, err = call("decide", "--runs", "runs.yaml")
    said = "no run has 'metrics.reward' (did you mean 'metrics.return'?); there are: metrics.return, metrics.speed"
    assert (code, err) == (2, f"error: {said}\n")


def test_the_command_that_judges_again_names_the_store(theirs, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    run = theirs.create_run(theirs.get_experiment_by_name("theirs").experiment_id, tags={"seed": "8"}).info.run_id
    theirs.log_param(run, "model", "norm")
    out = call("decide", "--runs", "runs.yaml", "--tracking-uri", "sqlite:///mlflow.db")[1]
    assert "  fnostab decide --runs runs.yaml --tracking-uri sqlite:///mlflow.db\n" in out


def test_a_report_has_the_curves_that_there_are_and_writes_nothing_of_theirs(theirs, call):
    before = hashlib.sha256(Path("mlflow.db").read_bytes()).hexdigest()
    code, out, err = call("report", "--runs", "runs.yaml")
    assert (code, err) == (0, "")
    assert "norm helps" in out
    assert "recorded" not in out
    assert hashlib.sha256(Path("mlflow.db").read_bytes()).hexdigest() == before
    page = Path("reports/runs/report.html").read_text()
    assert "runs.yaml: 16 runs" in page
    assert "1 run without params.model or tags.seed takes no part" in page
    assert "<h3>return over the steps</h3>" in page
    assert "Stage" not in page
    assert page.index("16 runs") < page.index("norm 0/7") < page.index('"answer">norm helps') < page.index("Next step")
    assert page.count('<a href="http://127.0.0.1:5000/#/experiments/') == 16 + 1  # each trial, the broken one twice
    for absent in (
        "Gradient norms",
        "Kaplan-Meier",
        "What differs",
        "spikes",
        "failed at step",
        "epoch",
        "verdict's run",
    ):
        assert absent not in page
    text = Path("reports/runs/report.md").read_text()
    assert "### return over the steps" in text
    assert {path.name for path in Path("reports/runs/pictures").iterdir()} == {
        "failure-rates.png", "losses.png", "values.png"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["losses", "mean return"])
def test_a_metric_of_any_name_has_a_picture_of_its_own(theirs, call, name):
    for run in theirs.search_runs([theirs.get_experiment_by_name("theirs").experiment_id]):
        for step in range(3):
            theirs.log_metric(run.info.run_id, name, 1.0 + step, step=step)
    Path("runs.yaml").write_text(re.sub("metrics.return$", f"metrics.{name}", MAPPING, flags=re.MULTILINE))
    assert call("report", "--runs", "runs.yaml")[0] == 0
    shown = re.findall(r"!\[.*\]\((pictures/[a-z-]+\.png)\)", Path("reports/runs/report.md").read_text())
    assert sorted(shown) == ["pictures/failure-rates.png", "pictures/losses.png", "pictures/values.png"]
    assert all((Path("reports/runs") / picture).exists() for picture in shown)


def test_gradient_norms_are_drawn_where_they_were_recorded(theirs, call):
    for run in theirs.search_runs([theirs.get_experiment_by_name("theirs").experiment_id]):
        for step in range(5):
            theirs.log_metric(run.info.run_id, "grad_norm/total", 1.0 + step, step=step)
    call("report", "--runs", "runs.yaml", "-o", "out")
    page = Path("out/report.html").read_text()
    assert "<h3>Gradient norms</h3>" in page
    assert "Gradient norms as recorded, of 15 of 16 runs." in page
    assert "norm: 7 seeds, largest norm 5 at step 4" in page


def test_curves_are_of_finite_values(theirs, call):
    runs = theirs.search_runs([theirs.get_experiment_by_name("theirs").experiment_id], "tags.seed = '0'")
    for run in runs:
        for step, value in ((1, math.inf), (2, math.nan)):
            theirs.log_metric(run.info.run_id, "return", value, step=step)
    judged = judge_runs(Path("runs.yaml"))
    found = gather_of_runs(judged.store, judged.case, judged.history, judged.experiment_ids)
    steps, values = found.val_losses[runs[0].info.run_id]
    assert (len(found.val_losses), steps.tolist()) == (15, [0, 10, 20, 30, 40])
    assert abs(values).max() < 1000


def test_a_report_of_a_table_says_not_judged_where_it_was_not(workplace, call):
    rows = [f"{arm},{seed},{1 + seed}" for arm in ("base", "norm") for seed in range(5)]
    Path("loss.csv").write_text("\n".join(["model,seed,loss", *rows]))
    Path("mine.yaml").write_text(
        "{table: loss.csv, control: base, arm: columns.model, seed: columns.seed, metric: columns.loss}"
    )
    assert call("report", "--runs", "mine.yaml")[0] == 0
    page = Path("reports/mine/report.html").read_text()
    assert "failure not judged: the file does not say when a run failed" in page
    assert "base not judged, norm not judged" in page
    assert not re.search(
        r"0/5|fewest failures|succeeded, failures|5/5 ok|failure-rates|MLflow run|over the steps", page
    )
    assert "Records: <code>loss.csv</code>" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", "t.csv"), " with --tracking-uri, or say what else to export: --runs FILE.yaml\n"),
        (
            ("report", "--experiment", "x", "--runs", "y"),
            "give one of --experiment and --runs: they name different trials\n",
        ),
        (
            ("decide", "--experiment", "x", "--runs", "y"),
            "give one of --experiment, --table and --runs: they name different trials\n",
        ),
    ],
)
def test_one_source_must_be_named(workplace, call, arguments, words):
    code, _, err = call(*arguments)
    assert code == 2
    assert err.endswith(words)


def test_what_is_not_finite_is_a_failure_in_mlflow_as_in_a_table(theirs, call):
    experiment = theirs.get_experiment_by_name("theirs").experiment_id
    for seed, value in enumerate((math.nan, math.inf, -math.inf)):
        run = theirs.create_run(experiment, tags={"seed": str(seed)}).info.run_id
        theirs.log_param(run, "model", "wild")
        theirs.log_metric(run, "return", value)
    (wild,) = [arm for arm in answer(call, "--runs", "runs.yaml")["arms"] if arm["arm"] == "wild"]
    assert wild["outcomes"] == {"nonfinite": 3}
