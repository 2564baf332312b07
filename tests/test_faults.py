"""A part of `python -m benchmarks.faults`: whatever befalls a study, nothing is lost or doubled or stays RUNNING.

FAULTS=all in the environment adds the stores behind a server, which take minutes.
"""

import os

import pytest

from benchmarks.fault_kills import kill_at_random
from benchmarks.fault_places import Place, postgresql_programs
from benchmarks.faults import Cell, Matrix, new_place, nothing_befalls, on_server, trial_faults, verdict_fault


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    return Matrix(folder, nothing_befalls(folder / "whole"))


def test_a_trial_that_is_killed_ends_as_its_twin_that_was_not(matrix):
    place = new_place(matrix, "trials", matrix.folder / "whole" / "mlflow.db")
    trial_faults(matrix, place, "SQLite", ["sigkill"], ["mid-epoch"])
    assert matrix.cells[-1].fault == "sigkill"
    assert matrix.cells[-1].row().endswith("| OK |")


def test_a_verdict_whose_process_is_killed_is_closed_and_made_again(matrix):
    verdict_fault(matrix, Place(matrix.folder / "whole"), Cell("SQLite", "verdict", "sigkill"), "whole")
    assert matrix.cells[-1].row().endswith("| OK |")


def test_ten_kills_at_random_moments(tmp_path):
    report = kill_at_random(tmp_path, 10, seed=0, seeds=1, jobs=2, epochs=8, pause_s=(1, 8), twins=0)
    assert report.kills.total() == 10
    assert (report.problems, report.running, report.doubled) == ([], 0, 0)
    assert report.stored == report.recorded > 0
    assert report.trials >= 2


@pytest.mark.skipif(os.environ.get("FAULTS") != "all", reason="takes minutes: set FAULTS=all")
@pytest.mark.parametrize("store", ["server", "postgresql"])
def test_through_a_server(store, matrix):
    if store == "postgresql" and postgresql_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    before = len(matrix.cells)
    on_server(matrix, store, quick=True)
    assert len(matrix.cells) > before
    assert all(cell.ok for cell in matrix.cells[before:]), [cell.row() for cell in matrix.cells[before:]]
