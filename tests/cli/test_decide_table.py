"""``fnostab decide --table``: a verdict from a CSV file, as a user calls it."""

import json
import subprocess
import sys
import time

import pytest

HEADER = "stage,arm,seed,outcome,val_loss,failure_step,last_step"
PUBLISHED = [
    "a,control,0,converged,0.0138,,599",
    "a,arch_fix,0,converged,0.0243,,599",
    "a,opt_fix,0,collapsed,,100,599",
]


def rows(stage, arm, ok, failed, loss=0.01):
    good = [f"{stage},{arm},{seed},converged,{loss + seed * 1e-5},,599" for seed in range(ok)]
    return good + [f"{stage},{arm},{seed},collapsed,,100,599" for seed in range(ok, ok + failed)]


def write(path, lines):
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path.name


GOLD = (
    rows("a", "control", 7, 3, loss=0.02) + rows("a", "arch_fix", 10, 0) + rows("a", "opt_fix", 7, 3)
    + rows("b", "control", 2, 8) + rows("b", "arch_fix", 10, 0)
)  # fmt: skip
SILVER = rows("a", "control", 7, 3) + rows("a", "arch_fix", 5, 5) + rows("a", "opt_fix", 10, 0)
PIVOT = SILVER + rows("b", "control", 2, 8) + rows("b", "arch_fix", 1, 9) + rows("b", "opt_fix", 1, 9)


def test_the_published_table(fnostab, tmp_path):
    start = time.perf_counter()
    done = fnostab(tmp_path, "decide", "--table", write(tmp_path / "t.csv", PUBLISHED))
    print(f"decide --table took {time.perf_counter() - start:.1f} s")
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert "INCONCLUSIVE: arch_fix: fewer_failures, better_loss, no_nonfinite untestable in Stage A" in text
    assert "next: run Stage B with control" in text


def test_json(fnostab, tmp_path):
    table = write(tmp_path / "t.csv", [*GOLD, "a,control,10,oom,,,", "a,control,11,running,,,"])
    answer = json.loads(fnostab(tmp_path, "decide", "--table", table, "--json").stdout)
    assert (answer["verdict"], answer["supported"], answer["winner"]) == ("GOLD", False, "arch_fix")
    assert answer["next_step"] == "make arch_fix the default architecture"
    (control,) = [a for a in answer["arms"] if (a["stage"], a["arm"]) == ("a", "control")]
    assert {name: control[name] for name in ("n", "n_ok", "n_failed", "n_excluded")} == {
        "n": 10,
        "n_ok": 7,
        "n_failed": 3,
        "n_excluded": 1,
    }
    assert control["failure_rate"] == 0.3
    assert control["failure_rate_ci"] == pytest.approx([0.108, 0.603], abs=5e-4)
    assert control["median"] == pytest.approx(0.02003)
    assert {"iqr", "matched_ratio", "worst_rank_p"} <= control.keys()
    (criterion,) = [
        c for c in answer["criteria"] if (c["stage"], c["arm"], c["name"]) == ("a", "arch_fix", "fewer_failures")
    ]
    assert (criterion["state"], criterion["supported"], criterion["test"]) == ("met", False, "Boschloo")
    assert criterion["p"] == pytest.approx(2 * 0.0579, abs=2e-4)  # Holm, two candidates
    assert criterion["effect"] == pytest.approx(0.3)
    assert len(criterion["ci"]) == 2
    assert len(answer["trials"]) == 52
    excluded = answer["trials"][30]
    assert [excluded[name] for name in ("stage", "arm", "seed", "outcome", "run_id")] == [
        "a",
        "control",
        10,
        "oom",
        None,
    ]


@pytest.mark.parametrize(
    ("lines", "options", "status", "verdict"),
    [
        (GOLD, [], 0, "GOLD (unsupported)"),
        (SILVER, [], 10, "SILVER (unsupported)"),
        (PIVOT, [], 20, "PIVOT"),
        (PUBLISHED, [], 30, "INCONCLUSIVE"),
        (GOLD, ["--require-support"], 30, "INCONCLUSIVE: GOLD on the observed numbers, but unsupported"),
    ],
)
def test_exit_codes(call, tmp_path, monkeypatch, lines, options, status, verdict):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("decide", "--table", write(tmp_path / "t.csv", lines), "--exit-code", *options)
    assert code == status
    assert verdict in " ".join(out.split())


def test_a_study_maps_other_names(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    renamed = [line.replace("control", "plain").replace("arch_fix", "ours") for line in GOLD]
    table = write(tmp_path / "t.csv", [line for line in renamed if "opt_fix" not in line])
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ndescription: d\ncontrol: plain\nroles: {architecture: ours}\narms: {plain: {}, ours: {}}\n"
    )
    code, out, _ = call("decide", "--table", table, "--study", "mine.yaml", "--exit-code")
    assert code == 0
    assert "GOLD (unsupported): ours" in " ".join(out.split())
    code, _, err = call("decide", "--table", table)
    assert code == 2
    assert err == "error: Stage A has no trial of the control arm 'control'; its arms: plain, ours\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,control,1,diverged,,,", "line 3: outcome='diverged' is not known"),
        ("a,control,0,converged,0.1,,9", "line 3: stage a, arm control, seed 0 is on line 2 too"),
        ("a,control,1,converged,nan,,9", "line 3: a converged trial needs a val_loss"),
        ("a,control,1,converged,-1,,9", "line 3: val_loss=-1 is negative"),
    ],
)
def test_bad_lines_are_one_line_errors(call, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("decide", "--table", write(tmp_path / "t.csv", [PUBLISHED[0], line]))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err


def test_a_table_needs_neither_torch_nor_mlflow(tmp_path, environment):
    table = write(tmp_path / "t.csv", GOLD)
    program = (
        "import sys; from fnostab.cli import main\n"
        f"try: main(['decide', '--table', {table!r}])\n"
        "finally: print('imported', sorted({'torch', 'mlflow', 'lightning', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("imported []\n")
