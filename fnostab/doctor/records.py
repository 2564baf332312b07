"""Check that records can be written: the store, its server and its clock."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fnostab.doctor.finding import Check, Finding, State
from fnostab.doctor.installation import TESTED
from fnostab.record.plurals import counted

if TYPE_CHECKING:
    from fnostab.tracking import Store

SKEWED_S, FAR_SKEWED_S = 5.0, 300.0  # times in the UI are wrong; live processes are taken for dead
IF_HANGING = "check that the server and its database run, and read their logs"


def records_checks(tracking_uri: str | None, output: Path, mend: bool = False) -> Iterator[Check]:
    """Checks of the store that the other commands would use, and whether it holds all journals under ``output``.

    With ``mend``, artifact addresses are corrected if the database was moved or copied.
    """
    from fnostab.tracking.store.health import default_database

    path = default_database(tracking_uri)
    if path is not None:
        yield Check("records", lambda: _no_database(path), 5.0, IF_HANGING)
        return
    opened: list[Store] = []
    yield Check("records", lambda: _open(tracking_uri, opened), 90.0, IF_HANGING, decides=True)
    yield Check("schema", lambda: _schema(opened[0]), 30.0, IF_HANGING)
    yield Check("artifacts", lambda: _artifacts(opened[0], mend), 60.0, IF_HANGING)
    yield Check("clock", lambda: _clock(opened[0]), 30.0, IF_HANGING)
    yield Check("writing", lambda: _writing(opened[0]), 60.0, IF_HANGING)
    yield Check("journals", lambda: _journals(opened[0], output), 120.0, IF_HANGING)


def _no_database(path: Path) -> Finding:
    return Finding(State.OK, f"none yet; `fnostab run` makes {path}, `export MLFLOW_TRACKING_URI=...` names a server")


def _open(uri: str | None, opened: list["Store"]) -> Finding:
    from fnostab.tracking import open_store

    opened.append(open_store(uri))
    return Finding(State.OK, opened[0].address)


def _schema(store: "Store") -> Finding:
    from fnostab.tracking.store.health import served_version

    if not store.uri.startswith("http"):
        return Finding(State.OK, "up to date for this MLflow")  # or the store would not have opened
    found, tested = served_version(store), TESTED["mlflow"]
    if found.split(".")[:2] != tested.split(".")[:2]:
        return Finding(
            State.WARNING,
            f"the server has MLflow {found}, the tested version is {tested}: charts may be missing; on its machine "
            f"`pip install 'mlflow=={tested}'`",
        )
    return Finding(State.OK, f"the server has MLflow {found}")


def _artifacts(store: "Store", mend: bool) -> Finding:
    from fnostab.tracking.repair.artifact_addresses import move_addresses
    from fnostab.tracking.store.artifact_folders import ARTIFACTS, moved_experiments

    if store.uri.startswith("http"):
        return Finding(State.OK, "kept by the server")
    moved = moved_experiments(store.uri, store.client)
    if not moved:
        return Finding(State.OK, "in the folder that the database names")
    folders = ", ".join(sorted({str(folder) for folder in moved.values()}))
    if not mend:
        return Finding(
            State.FAILED,
            f"the database was moved or copied from {folders}: artifacts of {counted(len(moved), 'experiment')} "
            "would still go there; `fnostab doctor --mend` moves their addresses",
        )
    done = move_addresses(store)
    missing = (
        f"; of {counted(done.missing, 'run')} the artifacts are not here: copy them from there" if done.missing else ""
    )
    state = State.WARNING if done.missing else State.OK
    return Finding(
        state,
        f"moved {counted(done.addresses, 'address', 'addresses')} from {folders} to {done.folder / ARTIFACTS}{missing}",
    )


def _clock(store: "Store") -> Finding:
    from fnostab.tracking.store.health import clock_offset_s

    offset = clock_offset_s(store)
    if offset is None:
        return Finding(State.OK, "nothing to compare")
    text = f"the store's is {abs(offset):.1f} s {'ahead' if offset > 0 else 'behind'}"
    mend = "synchronise both with NTP, for example with `timedatectl set-ntp true`"
    if abs(offset) > FAR_SKEWED_S:
        return Finding(State.FAILED, f"{text}: trials running elsewhere may be taken for dead; {mend}")
    if abs(offset) > SKEWED_S:
        return Finding(State.WARNING, f"{text}: times of records are off by that; {mend}")
    return Finding(State.OK, text)


def _writing(store: "Store") -> Finding:
    from fnostab.tracking.store.health import try_writing

    try_writing(store)
    return Finding(State.OK, "a run was made and deleted again")


def _journals(store: "Store", output: Path) -> Finding:
    from fnostab.tracking.repair.journals_behind import journals_behind

    found = journals_behind(store, output)
    if found.behind:
        return Finding(
            State.FAILED,
            f"{store.address} lacks records of {len(found.behind)} of {counted(found.trials, 'trial')} in {output}, as "
            f"{found.behind[0].name}: `fnostab sync {shlex.quote(str(output))}` sends them",
        )
    if found.unreadable:
        return Finding(
            State.WARNING, f"{counted(len(found.unreadable), 'trial')} in {output} can't be read: {found.unreadable[0]}"
        )
    recent = f"; {found.recent} more were written within the last minute" if found.recent else ""
    return Finding(State.OK, f"the store has all records of {counted(found.trials, 'trial')} in {output}{recent}")
