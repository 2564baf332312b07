"""Journals on disk that a store does not wholly hold, by the marks in its runs."""

import os
import shutil

import pytest
from tracking_helpers import mark_of, only_trial, write_trial

from fnostab.record import names
from fnostab.record.archive import archive
from fnostab.record.journal import Journal
from fnostab.tracking import sync
from fnostab.tracking.repair.journals_behind import journals_behind


@pytest.fixture
def sent(store, study):
    """Directory of a trial that the store wholly holds."""
    directory = study.trial()
    write_trial(directory)
    sync(study.folder, store)
    return directory


def behind(store, study):
    for file in study.folder.glob("*/journal.jsonl*"):
        os.utime(file, (1, 1))  # long quiet
    found = journals_behind(store, study.folder)
    assert found.unreadable == ()
    return found.behind


def add_a_step(directory):
    with Journal(directory) as journal:
        journal.record(99, {"lr": 0.5})


@pytest.mark.parametrize("archived", [False, True])
def test_a_store_that_has_a_journal_has_it_however_it_is_kept(store, study, sent, archived):
    if archived:
        archive(sent)
    assert behind(store, study) == ()


@pytest.mark.parametrize("archived", [False, True])
def test_a_store_that_lacks_the_end_of_a_journal(store, study, sent, archived):
    add_a_step(sent)
    if archived:
        archive(sent)
    assert behind(store, study) == (sent,)
    sync(study.folder, store)
    assert behind(store, study) == ()


@pytest.mark.parametrize("change", [0, 50_000])
@pytest.mark.parametrize("archived", [False, True])
def test_the_mark_of_another_journal_says_nothing_of_this_one(store, study, sent, change, archived):
    offset, _, time_ms = mark_of(store).split()
    foreign = f"{int(offset) + change} deadbeef {int(time_ms) - 1}"
    store.client.set_tag(only_trial(store).info.run_id, names.SENT, foreign)
    if archived:
        archive(sent)
    assert behind(store, study) == (sent,)
    sync(study.folder, store)
    assert behind(store, study) == ()


def test_a_copy_of_a_journal_that_went_on_elsewhere_lacks_nothing(store, study, sent, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(study.folder, copy / "stage_a" / "5eed")
    add_a_step(sent)
    sync(study.folder, store)
    study.folder = copy / "stage_a" / "5eed"
    assert behind(store, study) == ()
