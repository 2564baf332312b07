"""``fnostab decide --runs FILE.yaml``: an answer from existing runs, in MLflow or as rows of a CSV file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fnostab.decision.commands import Source
from fnostab.decision.external import Record, trials_of
from fnostab.decision.runs_file import RunsFile
from fnostab.errors import ConfigError, DecisionError
from fnostab.record.csv_text import check_decimals, csv_errors, parse_csv, read_text
from fnostab.record.settings import read_yaml_file
from fnostab.report.case import Case
from fnostab.report.judging import make_case
from fnostab.study.file import read_study_file

if TYPE_CHECKING:
    from fnostab.tracking import Store


def read_runs_file(path: Path) -> RunsFile:
    """Read the file that maps runs to trials.

    Raises:
        ConfigError: the file can't be read, or has another form.
    """
    try:
        file = read_yaml_file(path, "file of runs", RunsFile, "control: base")
    except ConfigError:
        _refuse_study(path)
        raise
    if file.table is None and not file.experiments:
        raise ConfigError(f"{path}: say where the runs are: table: FILE.csv, or experiments: [NAME]")
    if file.table is not None and file.experiments:
        raise ConfigError(f"{path} names a table and experiments: leave out one of them, or write a file for each")
    return file


def _refuse_study(path: Path) -> None:
    """Raise ConfigError if the file is a study, and say what judges that."""
    try:
        name = read_study_file(str(path)).name
    except ConfigError:
        return
    raise ConfigError(f"{path} is a study, not a file of runs: `fnostab decide --experiment {name}` judges its trials")


@dataclass(frozen=True)
class JudgedRuns:
    """Runs that a file describes, judged.

    Attributes:
        history: name of the metric of which MLflow has the history; None for a table.
        store: MLflow store of the runs; None for a table.
        source: address of the store, or path of the table.
        experiment_ids: id of the experiment by run id; empty for a table.
    """

    case: Case
    history: str | None
    store: Store | None
    source: str
    experiment_ids: Mapping[str, str]


def judge_runs(path: Path, tracking_uri: str | None = None) -> JudgedRuns:
    """Judge the runs that a file describes. Nothing is written.

    Raises:
        FnostabError: the file, the table or the store can't be read, or runs can't be told apart.
    """
    file, store, at, ids = read_runs_file(path), None, [], {}
    if file.table is not None:
        source = str(path.parent / file.table)
        rows = list(_rows(source, file))
        try:
            runs = trials_of([row for _, row in rows], file, places=[f"line {line}" for line, _ in rows])
        except DecisionError as error:
            raise DecisionError(f"{source}: {error}") from error
    else:
        from fnostab.cli.options import store_to_read
        from fnostab.tracking import foreign_names, foreign_runs
        from fnostab.tracking.store.errors import masked

        store = store_to_read(tracking_uri)
        at = ["--tracking-uri", masked(tracking_uri)] if tracking_uri else []
        source = store.address
        experiments = (file.experiments,) if isinstance(file.experiments, str) else file.experiments
        records = foreign_runs(store, experiments, file.names)
        ids = {run["run_id"]: run["experiment_id"] for run in records}
        runs = trials_of(records, file, known=lambda: foreign_names(store, experiments))
    lines = [f"{path}: {runs.lines[0]}", *runs.lines[1:]]
    again = shlex.join(["fnostab", "decide", "--runs", str(path), *at])
    case = make_case({"a": runs.stage}, {"a": runs.study}, source=Source(again=again), judged=lines)
    return JudgedRuns(case, file.history, store, source, ids)


def _rows(path: str, file: RunsFile) -> Iterator[tuple[int, Record]]:
    """Read the rows of a CSV file, each with its line, and each value under ``columns.NAME``."""
    with csv_errors(path):
        for line, row in parse_csv(read_text(path), path)[1]:
            named = {f"columns.{name}": value for name, value in row.items()}
            check_decimals(named, file.numbers, f"{path}, line {line}")
            yield line, {name: value for name, value in named.items() if value != ""}
