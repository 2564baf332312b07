"""Folders of records are found once, by their own paths where these are below, and behind links to records alone."""

import pytest

from fnostab.record.folders import folders_with


def trial(folder):
    folder.mkdir(parents=True)
    (folder / "trial.json").touch()
    return folder


def test_a_folder_below_is_named_by_its_own_path_whatever_links_lead_to_it(tmp_path):
    own = trial(tmp_path / "exp" / "5eed" / "control-0")
    (tmp_path / "best").symlink_to(own)
    (tmp_path / "exp" / "5eed" / "again").symlink_to(tmp_path / "exp")
    assert folders_with(tmp_path, "trial.json") == [own]


def test_of_two_links_the_one_to_more_names_what_is_behind_both(tmp_path):
    trial(tmp_path / "far" / "exp" / "5eed" / "control-0")
    here = tmp_path / "here"
    here.mkdir()
    (here / "a").symlink_to(tmp_path / "far" / "exp" / "5eed" / "control-0")
    (here / "b").symlink_to(tmp_path / "far" / "exp" / "5eed")
    assert folders_with(here, "trial.json") == [here / "b" / "control-0"]


@pytest.mark.parametrize("behind", ["control-0", "5eed/control-0"])
def test_a_link_to_folders_of_trials_is_followed_without_a_study_beside_them(tmp_path, behind):
    trial(tmp_path / "far" / behind)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far")
    assert folders_with(tmp_path / "here", "trial.json") == [tmp_path / "here" / "link" / behind]


def test_a_link_to_anything_else_is_not_followed(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "journal.jsonl").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data").symlink_to(tmp_path / "data")
    assert folders_with(tmp_path / "here", "journal.jsonl") == []
