"""A journal and its archive hold the same, and are read by the same calls."""

import contextlib
import math
import zlib

import pytest
from filelock import FileLock

from fnostab.errors import JournalError
from fnostab.record.archive import archive, opened, restore
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import journal_file


@pytest.fixture
def directory(tmp_path):
    """A trial's, with a journal of everything that there is."""
    with Journal(tmp_path) as journal:
        journal.event("tags", {"über": "größer → kleiner", "n": 3, "none": None})
        for step in range(500):
            values = {"train/loss": 1 / (step + 1), "grad_norm/total": 10.0**step if step < 300 else math.inf}
            journal.record(step, values | ({"val/mse": -0.0} if step % 100 == 99 else {}))
        journal.record(500, {"train/loss": math.nan})
        journal.event("outcome", {"outcome": "nonfinite", "rules_held": ["nonfinite"], "failure_step": 300})
    return tmp_path


def test_every_record_is_read_from_the_archive_as_before(directory):
    lines, before = directory / "journal.jsonl", list(read_journal(directory / "journal.jsonl"))
    text, size = lines.read_bytes(), lines.stat().st_size
    small = archive(directory)
    assert not lines.exists()
    assert small < size / 3
    with opened(directory) as file:
        assert len(file.read()) == size
    assert list(read_journal(lines)) == before
    for _, offset in before[::50]:  # whoever has read so far goes on from there
        assert list(read_journal(lines, offset)) == [each for each in before if each[1] > offset]
    restore(directory)
    assert lines.read_bytes() == text
    assert journal_file(directory) == lines


def test_a_writer_goes_on_with_an_archived_journal(directory):
    before = list(read_journal(directory / "journal.jsonl"))
    archive(directory)
    with Journal(directory) as journal:
        journal.record(400, {"train/loss": 1.0})  # known already
        journal.record(501, {"train/loss": 2.0})
    after = list(read_journal(directory / "journal.jsonl"))
    assert after[:-1] == before
    assert (after[-1][0].step, after[-1][0].values) == (501, {"train/loss": 2.0})


def test_a_crash_before_the_journal_was_deleted_leaves_it_in_use(directory):
    text = (directory / "journal.jsonl").read_bytes()
    archive(directory)
    (directory / "journal.jsonl").write_bytes(text)
    assert journal_file(directory).name == "journal.jsonl"
    archive(directory)
    assert [path.name for path in directory.glob("journal.*") if path.suffix != ".lock"] == ["journal.jsonl.xz"]


@pytest.mark.parametrize("more", [b'00000000 {"t":1,"e":"torn"', b"damaged\n" * 2])
def test_a_journal_that_is_not_whole_is_left(directory, more):
    lines = directory / "journal.jsonl"
    lines.write_bytes(lines.read_bytes() + more)
    text = lines.read_bytes()
    with pytest.raises(JournalError):
        archive(directory)
    assert lines.read_bytes() == text
    assert not list(directory.glob("*.xz")) + list(directory.glob("*.partial"))


def test_a_journal_that_another_program_wrote_with_other_spaces_comes_back_as_it_was(directory):
    line = b'{"t": 1, "e": "spaced", "p": {}}'
    with open(directory / "journal.jsonl", "ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(line), line))
    text = (directory / "journal.jsonl").read_bytes()
    archive(directory)
    restore(directory)
    assert (directory / "journal.jsonl").read_bytes() == text


@pytest.mark.parametrize("part", range(12))
def test_a_byte_that_changed_is_found(directory, part):
    before = list(read_journal(directory / "journal.jsonl"))
    archive(directory)
    path = directory / "journal.jsonl.xz"
    data = bytearray(path.read_bytes())
    at = 50 + part * (len(data) - 100) // 12
    data[at] ^= 1
    path.write_bytes(data)
    with contextlib.suppress(JournalError):  # or it is a byte that nothing depends on
        assert list(read_journal(directory / "journal.jsonl")) == before


def test_a_damaged_archive_is_an_error(directory):
    archive(directory)
    path = directory / "journal.jsonl.xz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(JournalError, match="restore it from a copy"):
        list(read_journal(directory / "journal.jsonl"))
    with pytest.raises(JournalError), FileLock(directory / "other.lock"):
        Journal(directory)
