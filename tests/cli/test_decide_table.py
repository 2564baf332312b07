"""``fnostab decide --table``: answers and a verdict from a CSV file, as a user calls it."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from fnostab.decision import Stage
from fnostab.decision.commands import Source
from fnostab.record.outcomes import Outcome
from fnostab.record.table import Table, TrialRow
from fnostab.record.table_file import read_table, write_table
from fnostab.record.table_study import TableStudy
from fnostab.record.trial import Measure
from fnostab.report.decide_table import decide
from fnostab.report.judging import make_case
from fnostab.report.verdict import to_json

HEADER = "stage,arm,seed,outcome,val_loss,failure_step,last_step"
PUBLISHED = [
    "a,control,0,converged,0.0138,,599",
    "a,arch_fix,0,converged,0.0243,,599",
    "a,opt_fix,0,collapsed,,100,599",
]


def rows(stage, arm, ok, failed, loss=0.01, steps=599, oom=0):
    """Losses rise by a thousandth of a hundredth from seed to seed, and differ between the stages."""
    start = loss + (stage == "b") * 1e-6
    good = [f"{stage},{arm},{seed},converged,{start + seed * 1e-5},,{steps}" for seed in range(ok)]
    bad = [f"{stage},{arm},{seed},collapsed,,100,{steps}" for seed in range(ok, ok + failed)]
    return good + bad + [f"{stage},{arm},{seed},oom,,,30" for seed in range(ok + failed, ok + failed + oom)]


def write(path, lines):
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path.name


def words(text):
    return " ".join(text.split())


GOLD = (
    rows("a", "control", 8, 12, loss=0.02) + rows("a", "arch_fix", 20, 0) + rows("a", "opt_fix", 8, 12, loss=0.02)
    + rows("b", "control", 2, 18) + rows("b", "arch_fix", 20, 0)
)  # fmt: skip
SILVER = rows("a", "control", 8, 12) + rows("a", "arch_fix", 8, 12) + rows("a", "opt_fix", 20, 0)
PIVOT = [line for stage in "ab" for arm in ("control", "arch_fix", "opt_fix") for line in rows(stage, arm, 40, 60)]
BOTH = rows("a", "control", 8, 12) + rows("a", "arch_fix", 20, 0, 0.011) + rows("a", "opt_fix", 20, 0)


def test_the_screen_has_what_was_judged_counts_a_sentence_an_arm_the_verdict_and_a_command(fnostab, tmp_path):
    done = fnostab(tmp_path, "decide", "--table", write(tmp_path / "t.csv", SILVER))
    assert (done.returncode, done.stderr) == (0, "")
    places = [
        words(done.stdout).index(part)
        for part in (
            "t.csv: 60 trials; compared with control, as the table names no study",
            "control 12/20 39%-78%",
            "arch_fix: undecided, 12 of 20 failed, 12 of 20 of control",
            "opt_fix helps: 0 of 20 failed, 12 of 20 of control (p < 0.001)",
            "SILVER: arch_fix is not shown to help, while opt_fix fails less often",
            "next: run Stage B with control and opt_fix",
            "fnostab run stage_b --arms control,opt_fix",
        )
    ]
    assert places == sorted(places)
    assert "Boschloo" not in done.stdout
    assert "Boschloo" in fnostab(tmp_path, "decide", "--table", "t.csv", "--evidence").stdout


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        (GOLD, 0, "GOLD: arch_fix fails less often than control in both stages"),
        (SILVER, 10, "SILVER: arch_fix is not shown to help"),
        (PIVOT, 20, "PIVOT: control fails in Stage B, and none of its candidates helps there"),
        (PUBLISHED, 30, "next: run 10 seeds of control, arch_fix and opt_fix"),
        (PUBLISHED, 30, "fnostab run stage_a --seeds 10 --arms control,arch_fix,opt_fix"),
        (BOTH, 30, "leaning SILVER (could be luck): arch_fix is shown to fail less often and only lacks: lower loss"),
        (
            [line.replace(",599", ",50") if "fix" in line else line for line in SILVER],
            30,
            "arch_fix: undecided, control ran 599 steps, arch_fix 50: they can't be compared.",
        ),
        (
            [line for arm in ("control", "arch_fix", "opt_fix") for line in rows("a", arm, 5, 5)]
            + rows("b", "control", 2, 3, oom=15) + rows("b", "arch_fix", 8, 12) + rows("b", "opt_fix", 8, 12),
            30,
            "fnostab run stage_b --seeds 20 --arms control --retry-oom",
        ),
        (
            rows("a", "control", 100, 0) + rows("a", "arch_fix", 1, 2),
            30,
            "arch_fix harms, it fails more often: 2 of 3 failed, 0 of 100 of control",
        ),
    ],
)  # fmt: skip
def test_tables_and_exit_codes(call, tmp_path, monkeypatch, lines, status, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    code, out, _ = call("decide", "--table", write(tmp_path / "t.csv", lines), "--exit-code")
    assert code == status
    assert said in words(out)


def test_counts_are_whole_beside_long_names(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    name = "an_arm_with_a_name_that_is_longer_than_others"
    lines = rows("a", "control", 8, 12, oom=3) + rows("a", name, 20, 0)
    _, out, _ = call("decide", "--table", write(tmp_path / "t.csv", lines))
    assert "12/20   39%-78%" in out
    assert "20 converged" in out
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert name in "".join(out.split()[:80]).replace(" ", "")


def test_rows_of_stage_a_copied_as_stage_b_are_refused(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = rows("a", "control", 3, 7) + rows("a", "arch_fix", 9, 1)
    code, _, err = call("decide", "--table", write(tmp_path / "t.csv", [*lines, *("b" + line[1:] for line in lines)]))
    assert code == 2
    assert err.startswith("error: Stage B repeats Stage A")


def test_json(fnostab, tmp_path):
    table = write(tmp_path / "t.csv", [*GOLD, "a,control,20,oom,,,", "a,control,21,running,,,"])
    answer = json.loads(fnostab(tmp_path, "decide", "--table", table, "--json").stdout)
    assert (answer["verdict"], answer["supported"], answer["winner"]) == ("GOLD", True, "arch_fix")
    assert answer["next"]["kind"] == "wait"
    (control,) = [a for a in answer["arms"] if (a["stage"], a["arm"]) == ("a", "control")]
    assert [control[name] for name in ("n", "n_ok", "n_failed", "n_excluded", "n_running")] == [20, 8, 12, 1, 1]
    (criterion,) = [
        c for c in answer["criteria"] if (c["stage"], c["arm"], c["name"]) == ("a", "arch_fix", "fewer_failures")
    ]
    assert (criterion["state"], criterion["supported"], criterion["test"]) == ("met", True, "Boschloo")
    assert criterion["effect"] == pytest.approx(0.6)
    assert next((a["stage"], a["arm"], a["name"]) for a in answer["answers"]) == ("a", "arch_fix", "helps")
    assert len(answer["trials"]) == 102


STUDY = TableStudy(
    control="base",
    roles={"architecture": "norm"},
    measures={"sharp/ness": Measure(margin=0.02)},
    margin=0.1,
    alpha=0.04,
    same_for_all=("object", "photon noise"),
    look=2,
)


def trials(arm, ok, failed, loss, **fields):
    """Trials with all that a store knows of them."""
    good = [
        TrialRow(arm, seed, Outcome.CONVERGED, loss * (1 + 0.01 * seed), None, 99, 100, {"sharp/ness": 0.8}, **fields)
        for seed in range(ok)
    ]
    bad = [
        TrialRow(arm, seed, Outcome.EXPLODED, None, 40, 41, 100, {}, (Outcome.EXPLODED,), grad_ratio=30.0)
        for seed in range(ok, ok + failed)
    ]
    return [*good, *bad]


def test_a_table_that_was_written_says_the_same_criterion_by_criterion(tmp_path):
    worse = [replace(t, measures={"sharp/ness": 0.7} if t.measures else {}) for t in trials("norm", 20, 0, 0.08)]
    stages = {
        "a": Stage("a", (*trials("base", 8, 12, 0.1, grad_ratio=2.0), *worse, *trials("other", 5, 0, 0.1))),
        "b": Stage("b", (*trials("base", 2, 18, 0.2), *trials("norm", 20, 0, 0.2)), {"norm": (20,)}),
    }
    stored = make_case(stages, {"a": STUDY}, source=Source())
    path = tmp_path / "t.csv"
    missing = {name: {arm: stage.missing(arm) for arm in stage.arms} for name, stage in stages.items()}
    write_table(path, Table({name: stage.trials for name, stage in stages.items()}, STUDY, missing))
    read = decide(read_table(path))
    assert stored.verdict == read.verdict
    assert (read.verdict.headline, read.verdict.rules.level) == ("leaning GOLD (could be luck)", 0.01)
    assert "its sharp/ness is shown to be worse" in read.verdict.reason
    different = {"judged", "conditions", "studies", "next"}
    assert {k: v for k, v in to_json(stored).items() if k not in different} == {
        k: v for k, v in to_json(read).items() if k not in different
    }


def test_what_was_not_varied_and_the_look_are_said(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    write_table("t.csv", Table({"a": [*trials("base", 3, 7, 0.1), *trials("norm", 9, 1, 0.1)]}, STUDY))
    _, out, _ = call("decide", "--table", "t.csv")
    assert (
        "drawn from the seed. The same for all seeds: object, photon noise. The answer holds only for these."
        in words(out)
    )
    assert "This is look 2 at this study, so it tests at 0.01 instead of 0.04." in words(out)


def test_a_loss_of_a_failed_trial_does_not_change_how_losses_compare(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    lines = rows("a", "control", 8, 12, loss=0.1) + rows("a", "cure", 20, 0, loss=0.105)
    said = []
    for placeholder in ("", "0", "-1"):
        placed = [line.replace("collapsed,,", f"collapsed,{placeholder},") for line in lines]
        said.append(call("decide", "--table", write(tmp_path / "t.csv", placed), "--evidence")[1])
    assert "cure helps: 0 of 20 failed" in said[0]
    assert said[1:] == said[:1] * 2


def test_control_must_be_there(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    renamed = [line.replace("control", "plain") for line in SILVER]
    code, _, err = call("decide", "--table", write(tmp_path / "t.csv", renamed))
    assert code == 2
    assert err.startswith("error: Stage A has no trial of the control arm 'control'; its arms: plain, arch_fix")
    assert err.endswith("name the control in a column study.control\n")


def test_blanks_within_the_name_of_control_or_of_a_role_are_those_of_its_arm(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [
        f"{arm},{seed},converged,0.{seed + 1},my  base,an  arm" for arm in ("my  base", "an  arm") for seed in (0, 1)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["arm,seed,outcome,val_loss,study.control,study.architecture", *cells]))
    code, out, err = call("decide", "--table", "t.csv")
    assert (code, err) == (0, "")
    assert "an arm: undecided, too few seeds" in words(out)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,control,1,diverged,,,", "line 3: outcome='diverged' is not known"),
        ("a,control,0,converged,0.1,,9", "line 3: stage a, arm control, seed 0 is on line 2 too"),
        ("a,control,1,converged,nan,,9", "line 3: a converged trial needs a val_loss"),
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
