import json
import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import Event, Point


def records(path):
    return [record for record, _ in read_journal(path)]


def write_three(directory):
    """A journal of two points and an event; returns its path."""
    with Journal(directory) as journal:
        journal.record(0, {"loss": 0.5, "lr": 1e-3})
        journal.event("tags", {"name": "ü"})
        journal.record(1, {"loss": 0.1 + 0.2})
    return directory / "journal.jsonl"


@pytest.fixture
def clock(monkeypatch):
    """The time in ms that the journal sees, settable; it goes on by 1 ms with each look."""

    class Clock:
        now_ms = 1_700_000_000_000

        def time_ns(self):
            self.now_ms += 1
            return self.now_ms * 1_000_000 + 999_999

    clock = Clock()
    monkeypatch.setattr("fnostab.record.journal.time", clock)
    return clock


def test_what_is_written_is_read_again_in_order(tmp_path, clock):
    assert records(write_three(tmp_path)) == [
        Point(1_700_000_000_001, 0, {"loss": 0.5, "lr": 1e-3}),
        Event(1_700_000_000_002, "tags", {"name": "ü"}),
        Point(1_700_000_000_003, 1, {"loss": 0.1 + 0.2}),
    ]


@given(values=st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False), min_size=1))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_digit_of_a_number_is_lost(tmp_path_factory, values):
    with Journal(tmp_path_factory.mktemp("journal")) as journal:
        journal.record(3, values)
        assert records(journal.path)[0].values == values


def test_times_are_those_of_the_record_whenever_it_is_read(tmp_path, clock):
    path = write_three(tmp_path)
    first = records(path)
    clock.now_ms += 10**9
    with Journal(tmp_path) as journal:
        journal.record(2, {"loss": 0.0})
    again = records(path)
    assert again[:3] == first
    assert again[3].time_ms > first[2].time_ms + 10**9


def test_values_that_are_not_finite_are_kept_apart(tmp_path):
    with Journal(tmp_path) as journal:
        journal.record(0, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5})
        journal.record(1, {"a": math.nan})
    first, second = records(journal.path)
    assert (first.values, first.nonfinite) == ({"d": 1.5}, {"a": "nan", "b": "inf", "c": "-inf"})
    assert (second.values, second.nonfinite) == ({}, {"a": "nan"})
    for line in journal.path.read_text().splitlines():
        json.loads(line.split(" ", 1)[1], parse_constant=pytest.fail)  # no NaN outside of strings


def test_numbers_of_numpy_are_numbers(tmp_path):
    with Journal(tmp_path) as journal:
        journal.record(0, {"a": np.float32(0.5), "b": np.int64(3)})
    assert records(journal.path)[0].values == {"a": 0.5, "b": 3.0}


def test_a_metrics_steps_only_grow(tmp_path):
    with Journal(tmp_path) as journal:
        journal.record(5, {"a": 1.0})
        journal.record(5, {"a": 2.0, "b": math.nan})
        journal.record(4, {"a": 3.0})
        journal.record(5, {"b": 4.0})
        journal.record(6, {"a": 5.0, "b": 6.0})
    assert [(p.step, dict(p.values)) for p in records(journal.path)] == [
        (5, {"a": 1.0}),
        (5, {}),
        (6, {"a": 5.0, "b": 6.0}),
    ]


def test_a_journal_that_goes_on_repeats_no_point(tmp_path):
    for _ in range(3):
        with Journal(tmp_path) as journal:
            for step in range(10):
                journal.record(step, {"loss": 1 / (step + 1), "bad": math.nan})
    assert [p.step for p in records(journal.path)] == list(range(10))


def test_a_torn_tail_is_ignored_and_cut_off_wherever_it_was_torn(tmp_path):
    whole = write_three(tmp_path / "whole").read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        path = tmp_path / str(cut) / "journal.jsonl"
        path.parent.mkdir()
        path.write_bytes(whole[:cut])
        kept = records(path)
        assert len(kept) == 2
        with Journal(path.parent) as journal:
            assert path.stat().st_size == start
            journal.record(1, {"loss": 0.1 + 0.2})
        assert [r.values for r in records(path) if isinstance(r, Point)][-1] == {"loss": 0.1 + 0.2}
        assert records(path)[:2] == kept
        assert len(records(path)) == 3


def test_a_torn_tail_that_ends_a_line_is_cut_off_too(tmp_path):
    path = write_three(tmp_path)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'0badc0de {"t":1,"s":2,"v":{"loss":9.0}}\n')
    assert len(records(path)) == 3
    Journal(tmp_path).close()
    assert path.stat().st_size == size


@pytest.mark.parametrize("where", [0, 4, 20, 60])
def test_a_damaged_line_in_the_middle_is_an_error(tmp_path, where):
    path = write_three(tmp_path)
    data = bytearray(path.read_bytes())
    data[where] ^= 0x11
    path.write_bytes(data)
    with pytest.raises(JournalError, match="damaged at byte 0"):
        records(path)
    kept = []  # a traceback that someone holds on to must not hold the lock too
    for _ in range(2):
        with pytest.raises(JournalError, match="damaged at byte 0") as refusal:
            Journal(tmp_path)
        kept.append(refusal)
    assert path.read_bytes() == data


def test_half_a_line_between_others_is_an_error(tmp_path):
    path = write_three(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:20] + lines[2] + lines[2])
    with pytest.raises(JournalError, match=f"damaged at byte {len(lines[0])}"):
        records(path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = write_three(tmp_path_factory.mktemp("intact"))
    return path.read_bytes(), records(path)


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)


@given(changes=CHANGES, cut=st.none() | st.integers(0, 10**6), added=st.binary(max_size=20))
@example(changes=[], cut=None, added=b"\n")
@example(changes=[], cut=None, added=b"\n\n")
@settings(max_examples=300)
def test_damage_gives_an_error_or_fewer_records_never_wrong_ones(tmp_path_factory, intact, changes, cut, added):
    data, written = bytearray(intact[0]), intact[1]
    for position, byte in changes:
        data[position % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    path.write_bytes(data[: None if cut is None else cut % len(data)] + added)
    seen = []
    try:
        for record, _ in read_journal(path):
            seen.append(record)
    except JournalError:
        pass
    assert seen == written[: len(seen)]


def test_a_reader_goes_on_where_it_stopped(tmp_path):
    path = write_three(tmp_path)
    pairs = list(read_journal(path))
    for index, (_, offset) in enumerate(pairs):
        assert list(read_journal(path, offset)) == pairs[index + 1 :]
    assert pairs[-1][1] == path.stat().st_size


def test_only_one_writer_at_a_time(tmp_path):
    with Journal(tmp_path) as journal:
        journal.record(0, {"a": 1.0})
        with pytest.raises(JournalError, match="another process"):
            Journal(tmp_path)
        code = f"from fnostab.record.journal import Journal; Journal({str(tmp_path)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "JournalError" in other.stderr
        assert "another process" in other.stderr
        journal.record(1, {"a": 2.0})
    with Journal(tmp_path) as journal:
        journal.record(2, {"a": 3.0})
    assert [p.step for p in records(journal.path)] == [0, 1, 2]


def test_points_survive_the_sudden_death_of_their_process(tmp_path):
    code = f"""
        import os
        from fnostab.record.journal import Journal
        journal = Journal({str(tmp_path)!r})
        for step in range(100):
            journal.record(step, {{"loss": 1.0}})
        os._exit(9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert len(records(tmp_path / "journal.jsonl")) == 100
    with Journal(tmp_path) as journal:
        journal.record(100, {"loss": 1.0})
    assert len(records(journal.path)) == 101


FULL_DISK = """
    import resource, sys
    from fnostab.errors import JournalError
    from fnostab.record.journal import Journal

    def fill(journal):
        for step in range(10_000):
            journal.record(step, {"loss": 0.5, "a long name that takes some room": float(step)})

    journal = Journal(sys.argv[1])
    journal.record(0, {"loss": 0.5, "a long name that takes some room": 0.0})
    for limit in map(int, sys.argv[2:]):  # each time some room is made, that ends within a record
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for _ in range(3):
            try:
                fill(journal)
            except JournalError as error:
                print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.event("outcome", {"outcome": "killed"})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
    limits = [str(limit) for limit in range(1000, 1400, 37)]
    arguments = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path), *limits]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3 * len(limits)
    assert all("can't write" in line and "free some space" in line for line in done.stdout.splitlines())

    *points, outcome = records(tmp_path / "journal.jsonl")
    assert outcome.payload == {"outcome": "killed"}
    assert [p.step for p in points] == list(range(len(points)))
    assert len(points) >= 8
    with Journal(tmp_path) as journal:
        journal.record(len(points), {"loss": 0.5})
    assert records(journal.path)[-1].step == len(points)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="can't write"):
        Journal(tmp_path / "file" / "trial")


def test_a_journal_that_cannot_be_opened_leaves_no_lock(tmp_path):
    (tmp_path / "journal.jsonl").mkdir()
    for _ in range(2):
        with pytest.raises(JournalError, match="can't"):
            Journal(tmp_path)


def test_a_journal_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(JournalError, match="can't read"):
        records(tmp_path / "journal.jsonl")


def nested(deep):
    return {"in": nested(deep - 1)} if deep else {}


UNREADABLE = {
    "deep": ("note", nested(40), "more than 30 deep"),
    "deeper than Python goes": ("note", nested(900), "can't be recorded"),
    "long": ("note", {"text": "x" * 17_000_000}, "at most 16,000,000"),
    "outcome": (names.OUTCOME_EVENT, {"outcome": "maybe"}, "'maybe' is not an outcome"),
    "not finite": ("note", {"loss": math.nan}, "float values"),
    "no JSON": ("note", {"when": object()}, "object"),
    "no path": (names.ARTIFACT_EVENT, {}, "path of artifact"),
    "a name of no text": (7, {}, "event '7'"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_an_event_that_no_reader_would_take_is_refused_before_a_byte_is_written(tmp_path, case):
    name, payload, why = UNREADABLE[case]
    path = write_three(tmp_path)
    before = path.read_bytes()
    with Journal(tmp_path) as journal:
        with pytest.raises(JournalError, match=why):
            journal.event(name, payload)
        assert path.read_bytes() == before
        journal.record(2, {"loss": 0.0})
    assert len(records(path)) == 4


@pytest.mark.parametrize("step", [1.0, "1", -1, 2**63, None])
def test_a_step_that_is_no_whole_number_from_0_is_an_error(tmp_path, step):
    path = write_three(tmp_path)
    before = path.read_bytes()
    with Journal(tmp_path) as journal:
        with pytest.raises(JournalError, match=r"record\(.*\): expected a (whole number of steps|step from 0)"):
            journal.record(step, {"other": 0.5})
        with pytest.raises(JournalError):
            journal.add(Point(1, step, {"other": 0.5}))
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", ["0.5", 1j, [1.0, 2.0], None])
def test_a_metric_that_is_no_number_is_an_error(tmp_path, value):
    with Journal(tmp_path) as journal, pytest.raises(JournalError, match="loss: expected a number"):
        journal.record(0, {"loss": value})


def test_integers_of_numpy_are_integers(tmp_path):
    with Journal(tmp_path) as journal:
        journal.record(np.int64(3), {"a": 1.0})
        journal.record(True, {"b": 1.0})
        journal.event("note", {"count": np.int32(7)})
    first, second, note = records(journal.path)
    assert (first.step, second.step, note.payload) == (3, 1, {"count": 7})


def test_points_are_taken_over_with_their_time_each_metric_once(tmp_path):
    with Journal(tmp_path) as journal:
        journal.record(4, {"loss": 1.0, "norm": math.inf})
        journal.add(Point(5, 5, {}, {"loss": "nan"}))
        journal.add(Point(6, 5, {"norm": 2.0}, {"loss": "inf"}))
        journal.add(Point(7, 4, {}, {"norm": "inf"}))
    assert records(journal.path)[1:] == [Point(5, 5, {}, {"loss": "nan"}), Point(6, 5, {"norm": 2.0})]


def test_a_point_that_the_disk_did_not_take_can_be_added_again(tmp_path, monkeypatch):
    with Journal(tmp_path) as journal:
        journal.record(0, {"loss": 1.0})
        with open("/dev/full", "ab", buffering=0) as full, monkeypatch.context() as patch:
            patch.setattr(journal, "_file", full)
            with pytest.raises(JournalError, match="free some space"):
                journal.add(Point(1, 1, {"loss": 2.0}))
        journal.add(Point(1, 1, {"loss": 2.0}))
    assert [point.step for point in records(journal.path)] == [0, 1]


@pytest.mark.parametrize("write", ["event", "add"])
def test_events_are_forced_to_the_disk_whoever_made_them(tmp_path, monkeypatch, write):
    forced = []
    with Journal(tmp_path) as journal:
        monkeypatch.setattr("fnostab.record.journal.os.fsync", forced.append)
        journal.record(0, {"loss": 1.0})
        assert forced == []
        journal.event("note", {}) if write == "event" else journal.add(Event(1, "note", {}))
        assert len(forced) == 1
