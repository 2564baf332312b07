"""``fnostab decide --runs``: runs that exist already, here as rows of a CSV file."""

import pytest

from fnostab.decision.external import trials_of
from fnostab.decision.runs_file import RunsFile
from fnostab.errors import DecisionError

MAPPING = """\
table: returns.csv
control: base
arm: columns.model
seed: columns.seed
metric: columns.return
higher_is_better: true
margin: 50
failed: {nonfinite: columns.loss, below: {columns.return: -600}}
excluded: {columns.status: FAILED}
"""


def row(model, seed, value, loss="0.1", status="FINISHED"):
    return f"{model},{seed},{value},{loss},{status}"


def write(folder, lines, mapping=MAPPING):
    (folder / "returns.csv").write_text("\n".join(["model,seed,return,loss,status", *lines]) + "\n")
    (folder / "runs.yaml").write_text(mapping)


ROWS = [
    *(row("base", seed, -900 if seed < 7 else -120 - seed) for seed in range(10)),
    *(row("norm", seed, -110 - seed) for seed in range(9)),
    row("norm", 9, -100, loss="nan"),
    row("norm", 10, "", status="FAILED"),
    row("", 3, -100),
]


def test_returns_of_a_table(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    write(tmp_path, ROWS)
    code, out, _ = call("decide", "--runs", "runs.yaml", "--exit-code")
    text = " ".join(out.split())
    assert "runs.yaml: 21 runs 1 run without columns.model or columns.seed takes no part: line 23" in text
    assert "norm 1/10" in text
    assert "norm helps: 1 of 10 failed, 7 of 10 of base" in text
    assert "The same for all seeds: data and validation set, unless the program draws them from its seed." in text
    assert code == 0


def test_without_a_rule_failure_is_not_judged(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    lines = [row("base", s, 100 + s) for s in range(6)] + [row("norm", s, 200 + s) for s in range(6)]
    write(
        tmp_path,
        lines,
        "\n".join(line for line in MAPPING.splitlines() if not line.startswith("failed")).replace(
            "excluded: {columns.status: FAILED}", ""
        ),
    )
    _, out, _ = call("decide", "--runs", "runs.yaml")
    text = " ".join(out.split())
    assert "failure not judged: the file does not say when a run failed" in text
    assert "norm helps: failure not judged; on the return alone: 100 higher" in text
    assert "nothing failed" not in text


def test_runs_without_a_value_that_their_outcome_needs_are_named(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    write(tmp_path, [*ROWS, row("base", 10, ""), row("base", 11, "", status="FAILED")])
    text = " ".join(call("decide", "--runs", "runs.yaml")[1].split())
    assert "1 run without a value of columns.return counts as infra_error: line 24" in text


@pytest.mark.parametrize(
    ("lines", "change", "message"),
    [
        (
            ROWS,
            ("columns.model", "columns.modle"),
            "no run has 'columns.modle' (did you mean 'columns.model'?); there are: columns.loss, columns.model",
        ),
        (ROWS, ("columns.model", "model"), "no run has 'model' (did you mean 'columns.model'?); there are: columns.l"),
        (ROWS, ("columns.model", "params.model"), "no run has 'params.model' (did you mean 'columns.model'?); there"),
        ([row("norm", 3, "far")], ("", ""), "error: returns.csv: line 2: columns.return='far' is not a number"),
        ([], ("", ""), "there is no run to judge: the table has no row"),
        (
            [*ROWS, row("norm", 3, 5)],
            ("", ""),
            "error: returns.csv: arm norm, seed 3 has two runs, line 15 and line 24: exclude one of them",
        ),
        (
            ROWS,
            ("control: base", "control: bse"),
            "the study has no trial of the control arm 'bse' (did you mean 'base'?); its",
        ),
        (
            [*ROWS, row("Norm", 30, 5)],
            ("", ""),
            "error: returns.csv: arms 'norm' and 'Norm' differ only by capitals or by characters that can't be seen",
        ),
        (ROWS, ("margin", "margn"), "runs.yaml: unknown setting 'margn'"),
        (
            ROWS,
            ("margin: 50", "measures: {columns.loss: {higher: false}}"),
            "unknown setting 'measures.columns.loss.higher'; accepted: higher_is_better, margin",
        ),
        (
            ROWS,
            ("control: base", "control: no"),
            "control: False is not accepted: expected a number or a name; in YAML, quote a name such as 'no' or 'true'",
        ),
        (
            ROWS,
            ("status: FAILED", "status: false"),
            "status=False is not accepted: input should be a valid string: in YAML, quote text that looks like",
        ),
        (
            ROWS,
            ("excluded:", "outcome: {columns.status: {FAILED: bad}}\nexcluded:"),
            "outcome.columns.status.FAILED='bad'",
        ),
        (ROWS, ("status: FAILED", "status: [FAILED, 1]"), "excluded.columns.status.1=1 is not accepted"),
        (
            ROWS,
            ("below: {columns.return: -600}", "above: {columns.failed: true}"),
            "columns.failed: True is not a number; if true means failed, write above: {columns.failed: 0}",
        ),
        (ROWS, ("table: returns.csv", ""), "say where the runs are: table: FILE.csv, or experiments: [NAME]"),
        (ROWS, ("control", "experiments: [mine]\ncontrol"), "names a table and experiments: leave out one of them, or"),
    ],
)
def test_refusals(call, tmp_path, monkeypatch, lines, change, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, lines, MAPPING.replace(*change) if change[0] else MAPPING)
    code, _, err = call("decide", "--runs", "runs.yaml")
    assert code == 2
    assert message in err


def test_blanks_after_a_name_and_infinity_as_mlflow_exports_it(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    write(tmp_path, [*ROWS, row("norm", 11, "-1.7976931348623157e+308")])
    csv = tmp_path / "returns.csv"
    csv.write_text(csv.read_text().replace("model,seed", "model , seed ", 1))
    assert "2 nonfinite" in call("decide", "--runs", "runs.yaml")[1]


def test_a_row_is_named_by_its_line_also_after_blank_ones(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, ["", *ROWS[:3], "", row("norm", 3, "far")])
    assert "returns.csv: line 7: columns.return='far' is not a number" in call("decide", "--runs", "runs.yaml")[2]


def test_another_separator_is_named(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, [])
    (tmp_path / "returns.csv").write_text("model;seed;return\nbase;0;-0,5\n")
    code, _, err = call("decide", "--runs", "runs.yaml")
    assert code == 2
    assert "returns.csv: columns are separated by semicolons: write them with commas, and decimals with a point" in err


@pytest.mark.parametrize("name", ["returns.csv", "./returns.csv", "runs.yaml"])
def test_the_runs_are_not_overwritten_by_their_export(call, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, ROWS)
    kept = (tmp_path / name).read_bytes()
    code, _, err = call("export", name, "--runs", "runs.yaml")
    assert code == 2
    assert f"{name.removeprefix('./')} would be overwritten, and the runs are read from it: name another" in err
    assert (tmp_path / name).read_bytes() == kept


def test_runs_of_mlflow_have_ids_and_a_status():
    file = RunsFile(experiments="theirs", control="a", arm="params.m", seed="tags.s", metric="metrics.r")
    base = {"params.m": "a", "tags.s": "0", "metrics.r": 1.5, "run_id": "r0", "status": "FINISHED"}
    runs = trials_of([base, {**base, "tags.s": "1", "run_id": "r1", "status": "RUNNING"}], file)
    assert [(t.seed, str(t.outcome), t.run_id) for t in runs.stage.trials] == [
        (0, "converged", "r0"),
        (1, "running", "r1"),
    ]
    with pytest.raises(DecisionError, match="two runs, r0 and r2"):
        trials_of([base, {**base, "run_id": "r2"}], file)
    counted = file.model_copy(update={"steps": "params.steps"})
    with pytest.raises(DecisionError, match=r"r0: params\.steps=-10 is not a number of steps"):
        trials_of([base | {"params.steps": "-10"}], counted)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a comma as decimal point",
            "model,seed,return,loss,status\nbase,0,-120,5,0.1,OK\n",
            "more values than columns",
        ),
        (
            "a comma as decimal point, in a row that ends early",
            "model,seed,return,loss,status\nbase,0,-120,5,0\nbase,1,-120,5\n",
            "returns.csv, line 3: fewer values than columns, and columns.return='-120' before columns.loss='5'; dec",
        ),
        ("a name twice", "model,seed,return,loss,loss\nbase,0,-1,2,3\n", "line 1, has the column 'loss' twice"),
        (
            "a seed below 0",
            "model,seed,return,loss,status\nbase,-1,-1,2,OK\n",
            "columns.seed='-1' is not a seed: expected a",
        ),
        (
            "a seed of text",
            "model,seed,return,loss,status\nbase,s1,-1,2,OK\n",
            "columns.seed='s1' is not a seed: expected",
        ),
        ("a seed and a half", "model,seed,return,loss,status\nbase,1.5,-1,2,OK\n", "columns.seed='1.5' is not a seed"),
        ("grouped digits", "model,seed,return,loss,status\nbase,1,1_000,2,OK\n", "'1_000' is not a number: leave it"),
    ],
)
def test_a_table_that_could_be_read_in_two_ways_is_refused(call, tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, [])
    (tmp_path / "returns.csv").write_text(text)
    code, _, err = call("decide", "--runs", "runs.yaml")
    assert code == 2, name
    assert message in err


def trial(**values):
    """The trial that a run with these values becomes, of a file with a bound on its accuracy."""
    file = RunsFile(
        table="x", control="a", arm="m", seed="s", metric="r", failed={"below": {"acc": 0.5}, "above": {"norm": 9.0}}
    )
    every = {"m": "a", "s": "0", "r": "1", "acc": "0.5", "norm": "9"}  # so that each name is known
    (_, found) = trials_of([every, every | {"s": "1"} | values], file).stage.trials
    return found


def test_a_bound_holds_beyond_it_and_for_nan_and_without_the_value_nothing_is_known():
    assert trial().outcome == "converged"
    assert trial(acc="0.499").outcome == trial(norm="9.01").outcome == "stagnated"
    assert trial(acc="nan").outcome == trial(norm="NaN").outcome == "stagnated"
    assert trial(acc=None).outcome == "infra_error"
    assert trial(acc=None, norm="10").outcome == "stagnated"


def test_a_seed_keeps_all_its_digits_and_may_be_written_as_a_float():
    assert trial(s=str(2**60 + 1)).seed == 2**60 + 1
    assert trial(s="3.0").seed == trial(s=3.0).seed == 3
    assert trial(s="1e+05").seed == 100_000


def test_a_flag_of_failed_runs_may_be_written_as_true_and_false():
    flagged = RunsFile(table="x", control="a", arm="m", seed="s", metric="r", failed={"above": {"flag": 0}})
    flags = ("True", "false", "1", "0", None, "T", "F", "Yes", "no")
    runs = [{"m": "a", "s": str(n), "r": None if n == 0 else "1", "flag": flag} for n, flag in enumerate(flags)]
    outcomes = [trial.outcome for trial in trials_of(runs, flagged).stage.trials]
    assert outcomes == [*2 * ["stagnated", "converged"], "infra_error", *2 * ["stagnated", "converged"]]
    with pytest.raises(DecisionError, match="row 1: flag='ok' is neither a number nor one of true, t, yes, false"):
        trials_of([{"m": "a", "s": "0", "r": "1", "flag": "ok"}], flagged)


WORDS = {"ok": "converged", "diverged": "exploded", "nan": "nonfinite", "crashed": "killed", "hangs": "running"}


def test_the_words_of_a_column_name_outcomes():
    file = {"table": "x", "control": "a", "arm": "m", "seed": "s", "metric": "r", "outcome": {"status": WORDS}}
    words = ("ok", "diverged", "nan", "crashed", "hangs", "", "ok", "ok", "crashed")
    runs = [{"m": "a", "s": str(n), "r": "7", "x": "0", "status": word} for n, word in enumerate(words)]
    runs[6] |= {"r": "inf"}
    runs[7] |= {"x": "1"}
    runs.append(runs[8] | {"status": "ok"})  # a retry
    found = trials_of(runs, RunsFile(**file, failed={"above": {"x": 0}}))
    outcomes = ["converged", "exploded", "nonfinite", "killed", "running", "infra_error", "nonfinite", "stagnated"]
    assert [trial.outcome for trial in found.stage.trials] == [*outcomes, "converged"]
    assert found.lines[1:] == ["1 run without a value of status counts as infra_error: row 6"]
    with pytest.raises(
        DecisionError, match=r"row 1: status='okay' has no outcome \(did you mean 'ok'\?\); the file gi"
    ):
        trials_of([runs[0] | {"status": "okay"}], RunsFile(**file))


@pytest.mark.parametrize(("word", "judged"), [("diverged", True), ("crashed", False)])
def test_failure_is_judged_if_a_word_means_one(word, judged):
    file = {"table": "x", "control": "a", "arm": "m", "seed": "s", "metric": "r"}
    file["outcome"] = {"status": {"FAILED": "converged", word: WORDS[word]}}
    found = trials_of([{"m": "a", "s": "0", "r": "7", "status": "FAILED"}], RunsFile(**file))
    assert found.study.failure_judged is judged
    assert [line for line in found.lines[1:] if "failure not judged" not in line] == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_retry_takes_the_place_of_an_excluded_run_but_not_of_one_that_failed(order):
    file = RunsFile(table="x", control="a", arm="m", seed="s", metric="r", excluded={"status": "FAILED"})
    died, again = (
        {"m": "a", "s": "3", "r": "7", "status": "FAILED"},
        {"m": "a", "s": "3", "r": "8", "status": "FINISHED"},
    )
    found = trials_of([died, again][::order], file)
    assert [(trial.outcome, trial.loss) for trial in found.stage.trials] == [("converged", 8)]
    assert found.lines[0] == "1 run"
    assert [trial.outcome for trial in trials_of([died, died], file).stage.trials] == ["infra_error"]
    failed = f"row {1 if order == 1 else 2} failed, which counts though it is excluded: remove one of them"
    with pytest.raises(DecisionError, match=f"seed 3 has two runs, row 1 and row 2: {failed}"):
        trials_of([died | {"r": "nan"}, again][::order], file)


def test_runs_that_did_not_finish_are_named_and_one_that_is_excluded_is_not_waited_for():
    runs = [{"m": "a", "s": str(n), "r": "7", "status": s} for n, s in enumerate(("FAILED", "RUNNING", "FINISHED"))]
    file = {"table": "x", "control": "a", "arm": "m", "seed": "s", "metric": "r"}
    found = trials_of(runs, RunsFile(**file))
    assert [trial.outcome for trial in found.stage.trials] == ["converged", "running", "converged"]
    told = "1 run with status FAILED counts as converged, unless the file says excluded: {status: FAILED}: row 1"
    assert told in found.lines
    found = trials_of(runs, RunsFile(**file, excluded={"status": ["FAILED", "RUNNING"]}))
    assert [trial.outcome for trial in found.stage.trials] == ["infra_error", "infra_error", "converged"]
    assert not [line for line in found.lines if "status" in line]
    for name, bad in (("columns.State", "crashed"), ("columns.Status", "FAILED")):  # exports of W&B, of MLflow's UI
        runs = [{"m": "a", "s": str(n), "r": "7", name: s} for n, s in enumerate(("finished", bad))]
        told = f"1 run with {name} {bad} counts as converged, unless the file says excluded: {{{name}: {bad}}}: row 2"
        assert told in trials_of(runs, RunsFile(**file)).lines


def test_blanks_within_the_name_of_control_are_those_of_its_arm():
    runs = [{"m": arm, "s": "0", "r": "7"} for arm in ("my\u00a0 base", "x")]
    found = trials_of(runs, RunsFile(table="x", control="my  base", arm="m", seed="s", metric="r"))
    assert found.study.control == "my base" == found.stage.arms[0]


def test_a_run_without_a_value_that_failed_names_is_not_said_to_have_converged():
    failed = {"nonfinite": "loss", "above": {"flag": 0}, "below": {"acc": 0.5}}
    file = RunsFile(table="x", control="a", arm="m", seed="s", metric="r", failed=failed)
    every = {"m": "a", "r": "7", "loss": "1", "flag": "false", "acc": "0.9"}
    lacking = [every | {"s": str(n), name: None} for n, name in enumerate(("loss", "acc"), start=1)]
    found = trials_of([every | {"s": "0"}, *lacking], file)
    assert [trial.outcome for trial in found.stage.trials] == ["converged", "infra_error", "infra_error"]
    assert found.lines[1:] == [
        "1 run without a value of loss counts as infra_error: row 2",  # as pandas writes NaN
        "1 run without a value of acc counts as infra_error: row 3",
    ]


def test_values_to_exclude_that_no_run_has_are_named():
    runs = [{"m": "a", "s": str(n), "r": "7", "status": s} for n, s in enumerate(("FAILED", "FINISHED", None))]
    file = {"table": "x", "control": "a", "arm": "m", "seed": "s", "metric": "r", "failed": {}}
    said = {
        "FAILD": ["excluded: no run has status 'FAILD' (did you mean 'FAILED'?); there are: FAILED, FINISHED"],
        ("FAILED", "7", "8"): ["excluded: no run has status '7' or '8'; there are: FAILED, FINISHED"],
        ("FAILED", ""): [],
    }
    for wanted, lines in said.items():
        found = trials_of(runs, RunsFile(**file, excluded={"status": wanted})).lines
        assert [line for line in found if line.startswith("excluded")] == lines


def test_a_study_file_is_told_what_judges_it(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("studies", "new", "mine.yaml", "--program")[0] == 0
    for command in ("decide", "report"):
        status, _, err = call(command, "--runs", "mine.yaml")
        expected = "mine.yaml is a study, not a file of runs: `fnostab decide --experiment mine` judges its trials"
        assert (status, err) == (2, f"error: {expected}\n")
