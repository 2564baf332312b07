"""A file is there whole or not at all, and a link in its place is not followed."""

import os

import pytest

from fnostab.record.safe_files import write_whole


@pytest.mark.parametrize("content", ["größer\n", b"\x00\xff", ""])
@pytest.mark.parametrize("to_disk", [False, True])
def test_it_holds_what_was_written_and_nothing_is_left_beside_it(tmp_path, content, to_disk):
    path = tmp_path / "trial.json"
    path.write_text("before")
    write_whole(path, content, to_disk=to_disk)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [each.name for each in tmp_path.iterdir()] == ["trial.json"]


@pytest.mark.parametrize("name", ["trial.json", "trial.json.partial"])
def test_a_link_is_replaced(tmp_path, name):
    others = tmp_path / "others"
    others.write_text("not mine")
    (tmp_path / name).symlink_to(others)
    write_whole(tmp_path / "trial.json", "mine")
    assert others.read_text() == "not mine"
    assert not (tmp_path / "trial.json").is_symlink()
    assert (tmp_path / "trial.json").read_text() == "mine"


def test_what_was_there_stays_where_it_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "trial.json"
    path.write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "after", to_disk=True)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["trial.json"]


def test_the_disk_knows_the_file_by_its_name_once_it_is_there(tmp_path, monkeypatch):
    forced = []

    def note(descriptor):
        forced.append((os.fstat(descriptor).st_ino, (tmp_path / "archive").exists()))

    monkeypatch.setattr(os, "fsync", note)
    write_whole(tmp_path / "archive", b"x", to_disk=True)
    assert forced == [((tmp_path / "archive").stat().st_ino, False), (tmp_path.stat().st_ino, True)]
