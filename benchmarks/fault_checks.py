"""Check a study after a fault: journals and database must agree, and nothing may be RUNNING.

The tables of the database are read directly, since MLflow hides some rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy

from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Point
from fnostab.record.outcomes import TRAINING_OUTCOMES
from fnostab.tracking.upload.batch import accepted_name

PointKey = tuple[str, int]  # metric, step
TIMED = (names.SAMPLES_PER_S, names.PEAK_MEMORY, "system/")  # metrics that differ from run to run


@dataclass
class Run:
    """Run as stored in the database, with all rows of its metric histories."""

    run_id: str
    name: str
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    points: list[tuple[PointKey, float]] = field(default_factory=list)

    @property
    def trial(self) -> str:
        """Arm and seed, the name of the trial's folder."""
        return f"{self.tags.get(names.ARM)}-{self.tags.get(names.SEED)}"


@dataclass(frozen=True)
class Found:
    """State of one trial after a fault.

    Attributes:
        recorded: number of points in the journal.
        stored: number of these points that are in the store.
        doubled: number of points that are twice in the journal or the store, or only in the store.
        outcome: outcome of the run; empty without a run.
        problems: descriptions of all inconsistencies.
        curve: points except those of time and memory.
    """

    recorded: int
    stored: int
    doubled: int
    outcome: str
    problems: tuple[str, ...]
    curve: Mapping[PointKey, float]


def read_runs(database: str, experiment: str) -> list[Run]:
    """Read all runs of an experiment that are not deleted."""
    engine = sqlalchemy.create_engine(database)
    of_experiment = (
        "FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id {} "
        "WHERE e.name = :name AND r.lifecycle_stage = 'active'"
    )
    with engine.connect() as connection:

        def rows(columns: str, join: str) -> Sequence[Any]:
            query = sqlalchemy.text(f"SELECT {columns} {of_experiment.format(join)}")
            return connection.execute(query, {"name": experiment}).fetchall()

        runs = {row[0]: Run(*row) for row in rows("r.run_uuid, r.name, r.status", "")}
        for run_id, key, value in rows("r.run_uuid, t.key, t.value", "JOIN tags t ON t.run_uuid = r.run_uuid"):
            runs[run_id].tags[key] = value
        for run_id, key, step, value in rows(
            "r.run_uuid, m.key, m.step, m.value", "JOIN metrics m ON m.run_uuid = r.run_uuid"
        ):
            runs[run_id].points.append(((key, step), value))
    engine.dispose()
    return list(runs.values())


def journal_points(directory: Path) -> list[tuple[PointKey, float]]:
    """All finite points of a journal, with the metric names used in MLflow."""
    return [
        ((accepted_name(name), record.step), value)
        for record, _ in read_journal(directory / "journal.jsonl")
        if isinstance(record, Point)
        for name, value in record.values.items()
    ]


def check_trial(directory: Path, runs: Sequence[Run]) -> Found:
    """Compare a trial's journal with its run, and check that there is exactly one."""
    recorded = journal_points(directory)
    times = [record.time_ms for record, _ in read_journal(directory / "journal.jsonl")]
    mine = [r for r in runs if r.tags.get(names.KIND) == names.KIND_TRIAL and r.trial == directory.name]
    stored = [point for run in mine for point in run.points]
    counts = [Counter(key for key, _ in points) for points in (recorded, stored)]
    doubled = sum(sum(c.values()) - len(c) for c in counts) + len(set(stored) - set(recorded))
    outcome = mine[0].tags.get(names.OUTCOME, "") if mine else ""
    problems = []
    if times != sorted(times):
        problems.append("times that decrease")
    if len(mine) != 1:
        problems.append(f"{len(mine)} runs of the trial")
    if lost := len(set(recorded) - set(stored)):
        problems.append(f"{lost} points lost")
    if doubled:
        problems.append(f"{doubled} points doubled")
    if outcome not in TRAINING_OUTCOMES or any(run.status != "FINISHED" for run in mine):
        problems.append(f"{outcome or 'no outcome'}, {[run.status for run in mine]}")
    curve = {key: value for key, value in recorded if not key[0].startswith(TIMED)}
    return Found(len(recorded), len(set(recorded) & set(stored)), doubled, outcome, tuple(problems), curve)


def count_running(runs: Sequence[Run]) -> int:
    """Number of runs of any kind with status RUNNING."""
    return sum(run.status == "RUNNING" for run in runs)


def differences(curve: Mapping[PointKey, float], whole: Mapping[PointKey, float]) -> list[str]:
    """Metrics in which a trial's curve differs from that of the same trial without a fault."""
    return sorted({key[0] for key in curve.keys() | whole.keys() if curve.get(key) != whole.get(key)})
