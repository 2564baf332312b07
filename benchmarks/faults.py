"""Inject every fault at every moment of a real study, act as a user would, and check that nothing is lost.

    python -m benchmarks.faults [--stores sqlite,server,postgresql] [--quick] [--markdown docs/reliability.md]
    python -m benchmarks.faults --limits [--markdown docs/reliability.md]
    python -m benchmarks.faults --kills 200 [--programs] [--markdown docs/reliability.md]

A cell of the matrix passes if the journals contain every point once, the store contains the same points, every trial
has one run with one outcome, nothing is RUNNING, and the curve equals that of the same trial without a fault.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fault_checks import Found, Run, check_trial, count_running, differences, read_runs
from benchmarks.fault_kills import KillsReport, kill_at_random
from benchmarks.fault_places import (
    TIMEOUT_S,
    Place,
    Server,
    postgresql,
    postgresql_programs,
    small_disk,
    wait_for_server,
)
from benchmarks.faulty import FAULTS, MARKER
from benchmarks.timing import write_section
from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event, Point
from fnostab.tracking import open_store

MOMENTS = ("start", "mid-epoch", "validation")  # within a trial
GO_ON = ("server", "clock")  # faults that end no trial
TRIAL_FAULTS = ("sigterm", "sigint", "exception", "oom", "exit", "sigkill")
STORES = {"sqlite": "SQLite", "server": "server on SQLite", "postgresql": "server on PostgreSQL"}
NEVER = {"model.options.moment": "never"}  # an arm of control's curve
FREED_AFTER_S = 4.0  # time for which the store's disk is full


@dataclass
class Cell:
    """Result of one fault at one moment."""

    store: str
    moment: str
    fault: str
    then: str = ""  # the user's next action
    trials: list[Found] = field(default_factory=list)
    running: int = 0
    back_s: float | None = None
    problems: list[str] = field(default_factory=list)
    has_curve: bool = True

    @property
    def ok(self) -> bool:
        """Whether no point was lost or doubled and nothing is RUNNING."""
        return not self.problems and not self.running

    def row(self) -> str:
        """Row of the Markdown table."""
        recorded, stored = sum(t.recorded for t in self.trials), sum(t.stored for t in self.trials)
        outcomes = ", ".join(sorted({t.outcome for t in self.trials}))
        back = "" if self.back_s is None else f"{self.back_s:.1f}"
        curve = "same" if self.has_curve and not any("curve" in p for p in self.problems) else "differs"
        doubled = sum(t.doubled for t in self.trials)
        end = "OK" if self.ok else "; ".join(self.problems) or f"{self.running} RUNNING"
        name = FAULTS.get(self.fault, "server killed before it answered")
        columns = [self.store, self.moment, name, self.then, f"{stored}/{recorded}", doubled, self.running, outcomes]
        return "| " + " | ".join(map(str, [*columns, curve if self.has_curve else "", back, end])) + " |"


@dataclass
class Matrix:
    """All results so far, and the trial without a fault that they are compared with."""

    folder: Path
    whole: Found
    cells: list[Cell] = field(default_factory=list)

    def add(self, cell: Cell, trials: Sequence[Path], runs: Sequence[Run]) -> None:
        """Check a cell's trials against the store, and add the cell."""
        cell.trials = [check_trial(directory, runs) for directory in trials]
        cell.running = count_running(runs)
        cell.problems += [problem for found in cell.trials for problem in found.problems]
        cell.problems += [f"{r.name} RUNNING" for r in runs if r.status == "RUNNING"]
        for found in cell.trials:
            if cell.has_curve and (metrics := differences(found.curve, self.whole.curve)):
                cell.problems.append(f"curve differs in {len(metrics)} metrics, as {metrics[0]}")
        self.cells.append(cell)
        print(cell.row(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", default=",".join(STORES), help="Of them: %(default)s.")
    parser.add_argument("--quick", action="store_true", help="Only a few cells.")
    parser.add_argument("--limits", action="store_true", help="Only clock, open files and two launchers: their rows.")
    parser.add_argument("--kills", type=int, help="So many kills at random moments instead of the matrix.")
    parser.add_argument("--programs", action="store_true", help="Kill those of a study of a program.")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    parser.add_argument("--markdown", type=Path, help="Put the result into this file.")
    parser.add_argument("--keep", type=Path, help="A folder in which everything stays.")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it, for this process and its children
    with contextlib.ExitStack() as stack:
        folder = (options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))).absolute()
        if options.kills:
            report = kill_at_random(folder, options.kills, options.seed, programs=options.programs)
            section = "kills of programs" if options.programs else "kills"
            text, ok = kills_table(report), report.ok
        else:
            started = time.monotonic()
            if options.limits:
                cells = only_limits(folder)
            else:
                cells = run_matrix(folder, options.stores.split(","), quick=options.quick)
            old = options.markdown.read_text() if options.limits and options.markdown else ""
            section, text = "matrix", matrix_table(cells, time.monotonic() - started, old)
            ok = all(cell.ok for cell in cells)
    print(text)
    if options.markdown:
        write_section(options.markdown, section, text, "benchmarks/faults.py")
    sys.exit(0 if ok else 1)


def run_matrix(folder: Path, stores: Sequence[str], *, quick: bool = False) -> list[Cell]:
    """Run all cells of some stores, two stores at a time."""
    matrix = Matrix(folder, nothing_befalls(folder / "whole"))
    groups: list[Callable[[], None]] = []
    if "sqlite" in stores:
        groups.append(lambda: on_sqlite(matrix, quick))
    if others := [store for store in stores if store in ("server", "postgresql")]:
        groups.append(lambda: [on_server(matrix, store, quick) for store in others] and None)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(group) for group in groups]:
            done.result()
    order = list(STORES.values())
    return sorted(matrix.cells, key=lambda cell: order.index(cell.store))


def only_limits(folder: Path) -> list[Cell]:
    """Cells of a clock, of few open files and of two launchers."""
    matrix = Matrix(folder, nothing_befalls(folder / "whole"))
    limits(matrix, folder / "whole" / "mlflow.db")
    return matrix.cells


def nothing_befalls(folder: Path) -> Found:
    """Run the trial without a fault that all others are compared with."""
    place = Place(folder)
    study = place.write_study("whole", {"control": {}})
    if status := place.call("run", str(study), "--seeds", "1", "--profile", "small"):
        raise RuntimeError(f"a study that nothing befalls ends with {status}: see {place.folder / 'commands.log'}")
    (directory,) = trials_in(place)
    found = check_trial(directory, read_runs(place.database, "whole"))
    if found.problems:
        raise RuntimeError("; ".join(found.problems))
    return found


def on_sqlite(matrix: Matrix, quick: bool) -> None:
    """Run all cells on SQLite without a server."""
    template = matrix.folder / "whole" / "mlflow.db"
    faults = ("oom", "sigkill") if quick else TRIAL_FAULTS
    moments = ("mid-epoch", "validation") if quick else MOMENTS
    trial_faults(matrix, new_place(matrix, "trials", template), STORES["sqlite"], faults, moments)
    uploads = ("sigkill",) if quick else ("sigterm", "sigint", "exception", "oom", "exit", "sigkill")
    for fault in uploads:
        upload_fault(matrix, new_place(matrix, f"upload-{fault}", template), STORES["sqlite"], fault)
    verdicts = ("sigkill",) if quick else TRIAL_FAULTS
    verdict_faults(matrix, new_place(matrix, "verdicts", template), STORES["sqlite"], verdicts)
    for moment in () if quick else (*MOMENTS, "upload", "verdict"):
        full_disk(matrix, template, moment)
    if not quick:
        limits(matrix, template)


def limits(matrix: Matrix, template: Path) -> None:
    """A clock that is set back, few open files, two launchers: without a server."""
    trial_faults(matrix, new_place(matrix, "clock", template), STORES["sqlite"], ("clock",), MOMENTS)
    for fault in ("files", "launchers"):
        launcher_fault(matrix, new_place(matrix, fault, template), STORES["sqlite"], fault)


def on_server(matrix: Matrix, store: str, quick: bool) -> None:
    """Run all cells through a server, on SQLite or PostgreSQL."""
    folder = matrix.folder / store
    with contextlib.ExitStack() as stack:
        if store == "postgresql":
            if postgresql_programs() is None:
                print("PostgreSQL is not installed: its cells are left out")
                return
            database = stack.enter_context(postgresql())
        else:
            folder.mkdir(parents=True)
            database = f"sqlite:///{folder / 'mlflow.db'}"
        server = stack.enter_context(Server(database, folder / "server", 5700 if store == "server" else 5800))
        place = Place(folder / "trials", database, server)
        trial_faults(matrix, place, STORES[store], ("server",), ("mid-epoch",) if quick else MOMENTS, jobs=1)
        uploads = ("sigkill", "server") if quick else (*TRIAL_FAULTS, "server", "answer")
        for fault in uploads:
            upload_fault(matrix, Place(folder / f"upload-{fault}", database, server), STORES[store], fault)
        verdicts = ("server",) if quick else (*TRIAL_FAULTS, "server")
        verdict_faults(matrix, Place(folder / "verdicts", database, server), STORES[store], verdicts)


def trial_faults(
    matrix: Matrix, place: Place, store: str, faults: Sequence[str], moments: Sequence[str], jobs: int = 2
) -> None:
    """Inject faults into trials: one study with an arm for each fault and moment."""
    arms = {
        f"{fault}-at-{moment}": {"model.options.fault": fault, "model.options.moment": moment}
        for fault in faults
        for moment in moments
    }
    command = ["run", str(place.write_study("trials", arms)), "--seeds", "1", "--profile", "small", "--jobs", str(jobs)]
    place.call(*command)
    wait_for_server(place)
    if "oom" in faults:
        place.call(*command, "--retry-oom")
    runs = read_runs(place.database, "trials")
    for directory in trials_in(place):
        fault, _, moment = directory.name.removesuffix("-0").partition("-at-")
        then = "`fnostab run --retry-oom`" if fault == "oom" else "nothing: tried again at once"
        cell = Cell(store, moment, fault, "nothing: it went on" if fault in GO_ON else then)
        cell.back_s = back_at_work_s(directory) if fault not in GO_ON else None
        if not (directory / MARKER).exists():
            cell.problems.append("the fault did not happen")
        matrix.add(cell, [directory], runs)


def upload_fault(matrix: Matrix, place: Place, store: str, fault: str) -> None:
    """Inject a fault into the launcher during an upload."""
    name = f"upload-{fault}"
    command = ["run", str(place.write_study(name, {"control": {}})), "--seeds", "1", "--profile", "small"]
    more = {"MLFLOW_RUN_ID": made_by_mlflow_run(place, name)} if fault == "sigkill" else {}
    cell = Cell(store, "first answer" if fault == "answer" else "upload", fault)
    befallen(place, cell, command, "upload", **more)
    matrix.add(cell, trials_in(place), read_runs(place.database, name))


def launcher_fault(matrix: Matrix, place: Place, store: str, fault: str) -> None:
    """A launcher may open few files, or another is started with it on the same study."""
    command = ["run", str(place.write_study(fault, {"control": {}, "other": NEVER})), "--seeds", "1"]
    command += ["--profile", "small"]
    cell = Cell(store, "launcher", fault)
    other = place.start(*command) if fault == "launchers" else None
    if other is None:
        befallen(place, cell, command, "launcher")
        cell.back_s = None  # it was never away
    else:
        statuses = [place.call(*command), other.wait(TIMEOUT_S)]
        cell.then = "nothing: both went on"
        cell.problems += [f"a launcher ends with {status}" for status in statuses if status]
    matrix.add(cell, trials_in(place), read_runs(place.database, fault))


def befallen(place: Place, cell: Cell, command: Sequence[str], moment: str, **more: str) -> None:
    """Run a command with a fault, then act as a user would: repeat it if it failed."""
    marker = place.folder / f"{moment}-{cell.fault}.txt"
    status = place.call(*command, FAULT=cell.fault, FAULT_MOMENT=moment, FAULT_MARKER=str(marker), **more)
    wait_for_server(place)
    if status:
        if status == -signal.SIGKILL and moment == "upload":
            place.call("reconcile")
            cell.then = "`fnostab reconcile`, "
        cell.then += f"`fnostab {command[0]}` again"
        if status := place.call(*command):
            cell.problems.append(f"`fnostab {command[0]}` again ends with {status}")
    else:
        cell.then = "nothing: it went on"
    if not marker.exists():
        cell.problems.append("the fault did not happen")
        return
    cell.back_s = time.time() - float(marker.read_text())


def verdict_faults(matrix: Matrix, place: Place, store: str, faults: Sequence[str]) -> None:
    """Inject faults into `fnostab decide` while it records the verdict."""
    arms = {"control": {}, "other": {"training.weight_decay": 0.001}}
    study = place.write_study("verdicts", arms)
    place.call("run", str(study), "--seeds", "1", "--profile", "small")
    for fault in faults:
        cell = Cell(store, "verdict", fault, has_curve=False)
        verdict_fault(matrix, place, cell, "verdicts")


def verdict_fault(matrix: Matrix, place: Place, cell: Cell, experiment: str) -> None:
    """Inject one fault into `fnostab decide` on a finished study."""
    before = verdicts_in(place, experiment)
    befallen(place, cell, ["decide", "--experiment", experiment], "verdict")
    place.call("reconcile")
    cell.then += ", `fnostab reconcile`"
    after = verdicts_in(place, experiment)
    if (finished := after.count("FINISHED") - before.count("FINISHED")) != 1:
        cell.problems.append(f"{finished} verdicts more")
    matrix.add(cell, trials_in(place), read_runs(place.database, experiment))


def full_disk(matrix: Matrix, template: Path, moment: str) -> None:
    """Fill the disk of the journals or of the store temporarily."""
    cell = Cell(STORES["sqlite"], moment, "disk", "space freed, ")
    place = new_place(matrix, f"disk-{moment}", template)
    disk = place.folder / "disk"
    with small_disk(disk) as mounted:
        if not mounted:
            print("full disk: left out, since only root can mount one")
            return
        ballast = str(disk / "ballast")
        if moment in MOMENTS:
            disk_of_journals(place, cell, disk, ballast)
        else:
            disk_of_store(place, cell, disk, ballast)
        cell.has_curve = moment != "verdict"
        matrix.add(cell, trials_in(place), read_runs(place.database, "disk"))


def disk_of_journals(place: Place, cell: Cell, disk: Path, ballast: str) -> None:
    """Fill the disk of the journals during a trial, and free it after the study has ended."""
    place.output = disk / "outputs"
    options = {"model.options.fault": "disk", "model.options.moment": cell.moment}
    command = ["run", str(place.write_study("disk", {"control": options})), "--seeds", "1", "--profile", "small"]
    command += ["--output", str(place.output)]
    place.environment["FAULT_BALLAST"] = ballast
    status = place.call(*command)
    if not status:
        cell.problems.append("the full disk was not noticed")
    if any(run.status == "RUNNING" for run in read_runs(place.database, "disk")):
        cell.problems.append("RUNNING while the disk is full")
    Path(ballast).unlink(missing_ok=True)
    freed = time.time()
    cell.then += "`fnostab run` again"
    if status := place.call(*command):
        cell.problems.append(f"the next run ends with {status}")
    cell.back_s = back_at_work_s(trials_in(place)[0], freed)


def disk_of_store(place: Place, cell: Cell, disk: Path, ballast: str) -> None:
    """Fill the disk of the store for some seconds during an upload or a verdict."""
    shutil.move(place.folder / "mlflow.db", disk / "mlflow.db")
    place.database = place.uri = place.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{disk / 'mlflow.db'}"
    place.environment["FAULT_BALLAST"] = ballast
    command = ["run", str(place.write_study("disk", {"control": {}})), "--seeds", "1", "--profile", "small"]
    if cell.moment == "verdict":
        place.call(*command)
        command = ["decide", "--experiment", "disk"]
    with freed_later(place.folder / f"{cell.moment}-disk.txt", Path(ballast)):
        befallen(place, cell, command, cell.moment)
    if cell.moment == "verdict":
        place.call("reconcile")
        cell.then += ", `fnostab reconcile`"


@contextlib.contextmanager
def freed_later(marker: Path, ballast: Path) -> Iterator[None]:
    """Context in which a disk is freed some seconds after it was filled."""

    def free() -> None:
        while not marker.exists():
            if leaving.wait(0.1):
                return
        time.sleep(FREED_AFTER_S)
        ballast.unlink(missing_ok=True)

    leaving = threading.Event()
    thread = threading.Thread(target=free)
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join()


def new_place(matrix: Matrix, name: str, template: Path) -> Place:
    """Create a place whose store already has its tables, which MLflow needs seconds to create."""
    place = Place(matrix.folder / name)
    shutil.copy(template, place.folder / "mlflow.db")
    return place


def trials_in(place: Place) -> list[Path]:
    """Folders of all trials of a place."""
    return sorted(path.parent for path in place.output.glob("*/*/*/trial.json"))


def verdicts_in(place: Place, experiment: str) -> list[str]:
    """Status of each verdict run of an experiment."""
    runs = read_runs(place.database, experiment)
    return [run.status for run in runs if run.tags.get(names.KIND) == names.KIND_VERDICT]


def made_by_mlflow_run(place: Place, experiment: str) -> str:
    """Create a run as `mlflow run` does before it starts a study; return its id."""
    client = open_store(place.uri).client
    found = client.get_experiment_by_name(experiment)
    key = found.experiment_id if found else client.create_experiment(experiment)
    return str(client.create_run(key, tags={"mlflow.project.entryPoint": "shootout"}).info.run_id)


def back_at_work_s(directory: Path, since: float | None = None) -> float | None:
    """Seconds from a fault, or from the time ``since``, to the first new point of the next attempt."""
    since = float((directory / MARKER).read_text()) if since is None else since
    began = False
    for record, _ in read_journal(directory / "journal.jsonl"):
        late = record.time_ms / 1000 > since
        began |= late and isinstance(record, Event) and record.name == names.PARAMS_EVENT
        if began and isinstance(record, Point):
            return record.time_ms / 1000 - since
    return None


def matrix_table(cells: Sequence[Cell], seconds: float, old: str = "") -> str:
    """Format the matrix as Markdown, with a summary line first; rows of the page ``old`` stay unless run again."""
    kept = re.findall(r"^\| (?:SQLite|server on \w+) \|.*\|$", old, re.MULTILINE)
    rows = {tuple(row.split(" | ", 3)[:3]): row for row in [*kept, *(cell.row() for cell in cells)]}
    stores = [f"| {store}" for store in STORES.values()]
    ordered = sorted(rows.values(), key=lambda row: stores.index(row.split(" | ")[0]))
    n_ok = sum(row.endswith("| OK |") for row in ordered)
    minutes = seconds / 60 + sum(map(int, re.findall(r"cells are OK \((\d+) minutes", old)))
    head = ["store", "moment", "fault", "done next", "points found/recorded", "doubled", "RUNNING left"]
    head += ["outcome", "curve", "back after (s)", ""]
    lines = [
        f"{n_ok} of {len(ordered)} cells are OK ({minutes:.0f} minutes, {os.cpu_count()} cores).",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *ordered,
    ]
    return "\n".join(lines)


def kills_table(report: KillsReport) -> str:
    """Format the results of the random kills as Markdown."""
    rows = report.rows()
    return "\n".join(["| what | result |", "|---|---|", *[f"| {name} | {value} |" for name, value in rows]])


if __name__ == "__main__":
    main()
