"""The search for a cure: from candidates to a table of all that were tried. Trials are recorded, not trained."""

import csv
import re
import sys

import pytest
import search as script

from fnostab.study.file import read_study_file
from fnostab.tracking import open_store

LOSS = {"control": 0.03, "bounded": 0.02, "limiter_both": 0.025}
STRESSED = [name for arm in ("control", "bounded") for name in read_study_file("stress_lr").stressed[arm]]


@pytest.fixture
def call(workplace, capfd, monkeypatch):
    """A function that calls the script in this process: (status, stdout, stderr)."""
    monkeypatch.setenv("PYTHONPATH", "")  # which the script changes

    def run(*arguments):
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["search.py", *arguments])
        try:
            script.main()
            status = 0
        except SystemExit as end:
            print(end, file=sys.stderr)
            status = 1
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture
def search(workplace, call, tiny_settings, record_study):
    """A function that records the steps of a search with ``n`` seeds to confirm on, and runs it."""

    def run(choose, confirm, usual, stress, *, n, ssim=None):
        fresh, usual_rate = {"data.seed": 3}, {"training.learning_rate": 1e-3}
        store, unset = open_store(None), {"training.learning_rate": None, "model.fno_blocks": 2}
        steps = [
            ("cure_choose", choose, {"seeds": round(0.6 * n)}),
            ("cure_confirm", confirm, {"seeds": range(300, 300 + n), **fresh}),
            ("cure_usual_rate", usual, {"seeds": range(300, 300 + 2 * n), **fresh, **usual_rate}),
        ]
        for experiment, failures, settings in steps:
            record_study(
                store, experiment, failures, study=script.CANDIDATES, loss=LOSS, ssim=ssim, **{**unset, **settings}
            )
        stressed = {"study": "stress_lr", "seeds": range(300, 300 + round(0.3 * n)), **fresh}
        record_study(store, "cure_stress", stress, **{**unset, **stressed})
        given = {name: value for name, value in tiny_settings.items() if name != "training.learning_rate"}
        sets = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
        arms = ("--arms", ",".join(choose), "--seeds", str(n))
        return call("--profile", "small", "--jobs", "1", *arms, *sets)

    return run


def test_a_cure_that_holds(search, workplace):
    choose = {"control": 2, "limiter_both": 0, "bounded": 0, "warmup": 1, "norm_1": 2, "warmup_norm_1": 0}
    confirm, usual = {"control": 7, "bounded": 0}, {"control": 0, "bounded": 0}
    stress = dict.fromkeys(STRESSED, 0) | {"control_0.02": 1, "control_0.04": 3, "control_0.08": 3, "bounded_0.08": 1}
    status, out, err = search(choose, confirm, usual, stress, n=10)
    assert status == 0, err
    assert "chosen: bounded" in out
    assert re.search(
        r"bounded holds: 0/10 failed .*, control 7/10 failed; .* Boschloo, p = 0.000436 \(one-sided\), significant; "
        r"bounded helps",
        out,
    )
    assert re.search(r"bounded at learning rate 1e-3: no worse than control; .*, significant", out)
    assert "half of control's trials fail at training.learning_rate 0.024" in out

    folder = workplace / "outputs/cure"
    with open(folder / "arms.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows if row["step"] == "choose"] == list(choose)  # all that were tried
    again = {row["arm"]: row["failed"] for row in rows if row["step"] == "choose again"}
    assert again == {"control": "2/6", "limiter_both": "0/6", "bounded": "0/6", "warmup": "1/6", "warmup_norm_1": "0/6"}
    (confirmed,) = [row for row in rows if (row["step"], row["arm"]) == ("confirm", "bounded")]
    assert confirmed["failed"] == "0/10"
    assert confirmed["failure rate (95 %)"] == "0% (0% to 28%)"
    assert confirmed["half fail at (95 %)"] == "beyond 0.08 (95 %: anywhere)"
    assert float(confirmed["p"]) < 0.01
    with open(folder / "trials.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 6 * 2 + 5 * 6 + 10 * 3 + 2 * 10 + 2 * 20
    text = (folder / "README.md").read_text()
    assert re.search(r"Made by `.*` on \d{4}-\d\d-\d\d, small profile. This go took \d+ minutes", text)
    assert "Not run: the full profile" in text
    assert "| bounded | 0/10 | 0% (0% to 28%) |" in text
    assert (folder / "pictures/stress.png").stat().st_size > 1000
    assert text.count(f"{'| --- ' * 7}|") == 4
    assert "- bounded holds: 0/10 failed" in text


def test_a_cure_that_does_not_hold_is_said_not_to(search):
    both, usual = {"control": 1, "bounded": 0}, {"control": 0, "bounded": 9}
    status, out, err = search(both, both, usual, dict.fromkeys(STRESSED, 1), n=5)
    assert status == 0, err
    assert "bounded does not hold: 0/5 failed" in out
    assert "bounded at learning rate 1e-3: not shown to be no worse than control; " in out
    assert "control failed in 20% of its trials, not in 30 to 90 %: a poor place to ask" in out
    assert "no arm tolerates more than that" in out


def test_a_cure_with_worse_images_does_not_hold(search):
    few, none = {"control": 7, "bounded": 0}, {"control": 0, "bounded": 0}
    choose = {"control": 4, "bounded": 0}
    status, out, err = search(choose, few, none, dict.fromkeys(STRESSED, 1), n=10, ssim={"bounded": 0.5})
    assert status == 0, err
    (said,) = [line for line in out.splitlines() if line.startswith("bounded does not hold: 0/10 failed")]
    assert "bounded helps, at a cost" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--arms", "control"), "error: arms=control: name candidates too"),
        (("--seeds", "0"), "error: seeds=0: expected"),
    ],
)
def test_a_search_needs_candidates_and_seeds(call, arguments, said):
    status, _, err = call(*arguments)
    assert status == 1
    assert err.startswith(said)
