"""Tests that what `differences` allows is left out, and nothing else; what is found is said so that it can be read."""

import pytest
from same_as import records
from same_as.arms import Study
from same_as.records import comparable, insist_same, unlike

BASELINE = {"a": {"b": 1, "c": 2.0}, "rows": [{"x": 1, "y": 2}], "hash": "0"}
HEAD = {"a": {"new": 1, "c": 2.0}, "rows": [{"x": 1, "z": 3}], "hash": "1"}


def pair():
    return comparable("decide", BASELINE, of_baseline=True), comparable("decide", HEAD, of_baseline=False)


def test_a_deliberate_change_is_one_line(monkeypatch):
    monkeypatch.setitem(records.RENAMED["decide"], "a.b", "new")
    monkeypatch.setitem(records.REMOVED, "decide", ("rows.y",))
    monkeypatch.setitem(records.ADDED, "decide", ("rows.z",))
    monkeypatch.setitem(records.CHANGED, "decide", ("hash",))
    insist_same(*pair())


def test_all_else_counts_and_is_named():
    lines = unlike(*pair())
    assert [line.split(":")[0] for line in lines] == ["a.b", "rows.0.y", "hash", "a.new", "rows.0.z"]
    with pytest.raises(AssertionError, match="hash: '0' in the baseline, '1' in head"):
        insist_same(*pair())


@pytest.mark.parametrize(("old", "new"), [(1.0, 1.0 + 2**-52), (0.0, -0.0), (1, 1.0), ("1", 1), ([], {}), (None, "")])
def test_every_bit_counts(old, new):
    one, other = (comparable("decide", {"a": value}, of_baseline=True) for value in (old, new))
    with pytest.raises(AssertionError):
        insist_same(one, other)


def test_points_are_compared_one_by_one():
    points = [("lr", step, float(step).hex()) for step in range(3)]
    insist_same(points, list(points))
    assert unlike(points, points[:2]) == [f"only in the baseline: {points[2]}"]
    assert unlike(points, [*points, points[0]]) == ["the same, but in another order or number"]


def test_a_study_is_written_with_the_names_of_its_tree(monkeypatch):
    monkeypatch.setattr("same_as.arms.RENAMED_SETTINGS", {"data.N": "task.N", "training.epochs": "epochs"})
    monkeypatch.setattr("same_as.arms.RENAMED_STUDY_KEYS", {"arms": "variants"})
    study = Study("s", {"control": {"training.epochs": 3}}, "control", "1", 1)
    assert "data.N: 16" in study.text(renamed=False)
    text = study.text(renamed=True)
    assert "task.N: 16" in text
    assert "variants:\n  control:\n    epochs: 3\n" in text
