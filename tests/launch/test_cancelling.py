"""`fnostab cancel` of a study on this machine, with stubs for the trials' processes."""

import subprocess
import sys
import time

import pytest

from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event, Point

TIMEOUT_S = 240


@pytest.fixture
def driver(workplace, stub_environment, environment, tiny):
    """`fnostab run` as a process, whose one trial trains until it is told to end."""
    stubs, script = stub_environment
    script({"control-0": ["hang"]})
    command = [sys.executable, "-m", "fnostab", "run", "stage_a", "--profile", "small", "--arms", "control", *tiny]
    with open("driver.txt", "w") as printed:
        process = subprocess.Popen(
            [*command, "--seeds", "1"], env=environment | stubs, stdout=printed, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + TIMEOUT_S
    while not any(isinstance(record, Point) for record in records(workplace)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def records(workplace):
    found = workplace.glob("outputs/stage_a/*/control-0/journal.jsonl")
    return [record for path in found for record, _ in read_journal(path)]


def outcome(workplace):
    events = [r for r in records(workplace) if isinstance(r, Event) and r.name == names.OUTCOME_EVENT]
    (last,) = events
    return last.payload["outcome"], last.payload["reason"]


def test_a_study_stops_and_its_trials_end_as_if_asked_to(driver, workplace, call):
    status, out, _ = call("cancel", "stage_a")
    assert (status, driver.wait(TIMEOUT_S)) == (0, 130)
    assert "control-0: killed  (asked to end)" in out
    assert outcome(workplace) == ("killed", "asked to end")
    assert "cancelled by `fnostab cancel`" in (workplace / "driver.txt").read_text()


def test_trials_whose_driver_is_gone_are_ended_too(driver, workplace, call):
    driver.kill()
    driver.wait()
    status, out, _ = call("cancel")
    assert status == 0
    assert "1 running or waiting trial was ended" in out
    assert outcome(workplace) == ("killed", "asked to end")


def test_what_is_not_there_is_said(workplace, call):
    status, _, err = call("cancel", "stage_a")
    looked = f"{workplace}/outputs/stage_a"
    assert (status, err) == (
        2,
        f"error: no study found under {looked}: name its experiment, and its output folder with --output\n",
    )
