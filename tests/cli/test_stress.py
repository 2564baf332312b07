"""`fnostab decide` and `fnostab report` on a stress study. Its trials are recorded, not trained."""

import json
from pathlib import Path

import pytest

from fnostab.tracking import open_store

RESULTS = Path(__file__).parents[2] / "results"
FAILURES = {"control_0.005": 0, "control_0.02": 3, "control_0.04": 6, "bounded_0.02": 0, "bounded_0.04": 1}


@pytest.fixture
def recorded(workplace, record_study):
    settings = {"training.learning_rate": None}
    record_study(open_store(None), "stress_lr", FAILURES, study="stress_lr", seeds=6, **settings)
    return workplace


def test_each_arms_margin_is_printed_and_written_into_the_report(recorded, call):
    status, out, err = call("decide", "--experiment", "stress_lr")
    assert status == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "arm 0.005 0.02 0.04 p half of the trials fail at" in lines
    assert "control 0/6 3/6 6/6 0.02 (95 %: after 0.005 and before 0.04)" in lines
    assert "bounded - 0/6 1/6 0.016 beyond 0.04 (95 %: after 0.02)" in lines
    assert "bounded tolerates more: beyond 0.04 (95 %: after 0.02) (p = 0.016)" in " ".join(lines)
    assert max(map(len, out.splitlines())) <= 80

    status, _, err = call("report", "--experiment", "stress_lr")
    assert status == 0, err
    text = (recorded / "reports/stress_lr/report.md").read_text()
    assert "(pictures/stress.png)" in text
    assert "Share of trials that failed against" in text
    assert (
        'aria-label="Failure rate against training.learning_rate"'
        in (recorded / "reports/stress_lr/report.html").read_text()
    )


def test_as_json(recorded, call):
    _, out, _ = call("decide", "--experiment", "stress_lr", "--json")
    stress = json.loads(out)["stress"]
    assert stress["knob"] == "training.learning_rate"
    control, bounded = stress["arms"]
    assert (control["margin"]["trains_at"], control["margin"]["fails_at"]) == (0.005, 0.04)
    assert bounded["points"][-1]["failed"] == 1


def test_a_part_of_a_stress_study_is_judged_where_control_ran(workplace, record_study, call):
    settings = {"training.learning_rate": None}
    failures = {"control_0.02": 6, "bounded_0.02": 1}
    record_study(open_store(None), "stress_lr", failures, study="stress_lr", seeds=6, **settings)
    status, out, err = call("decide", "--experiment", "stress_lr")
    assert status == 0, err
    assert "control 6/6 before 0.02" in " ".join(out.split())


def test_a_table_judged_by_a_study_file_is_a_stress_study_or_one_along_a_setting_too(recorded, call):
    assert call("export", "trials.csv", "--experiment", "stress_lr")[0] == 0
    bare = [",".join(line.split(",")[:7]) for line in (recorded / "trials.csv").read_text().splitlines()]
    (recorded / "bare.csv").write_text("\n".join(bare) + "\n")
    _, out, _ = call("decide", "--table", "bare.csv", "--study", "stress_lr")
    assert "bounded tolerates more: beyond 0.04 (95 %: after 0.02) (p = 0.016)" in " ".join(out.split())
    hunt = ("decide", "--table", str(RESULTS / "question/crash_hunt.csv"))
    _, out, _ = call(*hunt, "--study", "crash_hunt")
    assert "training begins to fail at model.fno_blocks 4" in out
    assert out.rstrip().endswith("next: study arms at model.fno_blocks 4")  # no command for another step
