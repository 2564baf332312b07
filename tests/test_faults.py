"""A part of `python -m benchmarks.faults`: whatever befalls a study, nothing is lost or doubled or stays RUNNING.

FAULTS=all in the environment adds the stores behind a server, and a clock, few open files and two launchers, which take
minutes.
"""

import os

import pytest

from benchmarks.fault_kills import kill_at_random
from benchmarks.fault_places import Place, postgresql_programs
from benchmarks.faults import (
    Cell,
    Matrix,
    limits,
    matrix_table,
    new_place,
    nothing_befalls,
    on_server,
    trial_faults,
    verdict_fault,
)

IN_FULL = pytest.mark.skipif(os.environ.get("FAULTS") != "all", reason="takes minutes: set FAULTS=all")


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


def test_new_cells_take_the_place_of_older_ones_in_the_table_and_the_others_stay():
    server, sqlite = (
        Cell(store, "upload", "sigkill", then) for store, then in (("server on SQLite", "b"), ("SQLite", "a"))
    )
    old = matrix_table([server, sqlite], 120)
    table = matrix_table(
        [Cell("SQLite", "upload", "sigkill", "c", problems=["lost"]), Cell("SQLite", "start", "clock")], 60, old
    )
    assert table.startswith("2 of 3 cells are OK (3 minutes")
    rows = [line.split(" | ")[:4] for line in table.splitlines() if " | upload | " in line or " | start | " in line]
    assert rows == [
        ["| SQLite", "upload", "SIGKILL", "c"],
        ["| SQLite", "start", "clock set back an hour", ""],
        ["| server on SQLite", "upload", "SIGKILL", "b"],
    ]


@IN_FULL
def test_a_clock_few_open_files_and_two_launchers(matrix):
    before = len(matrix.cells)
    limits(matrix, matrix.folder / "whole" / "mlflow.db")
    assert len(matrix.cells) == before + 5
    assert all(cell.ok for cell in matrix.cells[before:]), [cell.row() for cell in matrix.cells[before:]]


@IN_FULL
@pytest.mark.parametrize("store", ["server", "postgresql"])
def test_through_a_server(store, matrix):
    if store == "postgresql" and postgresql_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    before = len(matrix.cells)
    on_server(matrix, store, quick=True)
    assert len(matrix.cells) > before
    assert all(cell.ok for cell in matrix.cells[before:]), [cell.row() for cell in matrix.cells[before:]]
