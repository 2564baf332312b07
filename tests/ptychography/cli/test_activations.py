"""`fnostab activations` on tiny networks: without training, and after it."""

import json

import pytest

from fnostab.record import names
from fnostab.tracking import newest_study, open_store
from fnostab.tracking.read.studies import find_experiment

QUANTITIES = [quantity.rstrip("/") for quantity in names.BLOCK_QUANTITIES]
STUDY = ("activations", "stage_a", "--profile", "small", "--arms", "control,arch_fix")


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def numbers_of(out):
    (line,) = [line for line in out.splitlines() if line.startswith("numbers: ")]
    return json.loads(open(line.removeprefix("numbers: ")).read())


def test_at_initialisation_nothing_is_trained(call, workplace, tiny, narrow):
    status, out, err = call(*STUDY, "--at", "initialisation", "--seeds", "3", *tiny)
    assert (status, err) == (0, "")
    assert max(len(line) for line in out.splitlines() if not line.startswith(("figure", "numbers"))) <= 80
    assert "control, at initialisation, medians of 3 seeds" in out
    assert not list(workplace.glob("outputs/**/journal.jsonl"))
    arms = numbers_of(out)
    assert list(arms) == ["control", "arch_fix"]
    for of_arm in arms.values():
        assert list(of_arm) == ["initialisation"]
        assert list(of_arm["initialisation"]["seeds"]) == ["0", "1", "2"]
        for blocks in of_arm["initialisation"]["seeds"].values():
            assert list(blocks) == ["encoder.0", "encoder.1", "bottleneck"]
            assert all(list(state) == QUANTITIES for state in blocks.values())
        slope = of_arm["initialisation"]["drift"]["mean_slope"]
        assert slope["n"] == 3
        assert slope["interval"][0] < slope["estimate"] < slope["interval"][1]
    (picture,) = workplace.glob("outputs/activations/stage_a-*/activations.png")
    assert picture.stat().st_size > 10_000


def test_a_single_seed_gives_no_interval(call, workplace, tiny, narrow):
    status, out, _ = call(*STUDY, "--at", "initialisation", "--seeds", "5,", *tiny)
    assert status == 0
    assert "(one seed: no interval)" in out
    assert "can't tell" in out
    assert numbers_of(out)["control"]["initialisation"]["drift"]["mean_slope"]["interval"] is None


def test_after_training_stands_beside_the_start_and_is_added_to_the_studys_run(call, workplace, tiny, narrow):
    status, trained, _ = call(*STUDY, "--arms", "control", "--jobs", "1", *tiny)
    assert status == 0
    assert list(numbers_of(trained)["control"]) == ["initialisation", "after training"]
    assert "control, after training" in trained
    store = open_store()
    study = newest_study(store, find_experiment(store, "stage_a")).run_id
    assert {"activations.png", "activations.json"} <= {a.path for a in store.client.list_artifacts(study)}
