"""``fnostab decide --runs FILE.yaml``: an answer from runs that exist already, in MLflow or as rows of a CSV file."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fnostab.errors import ConfigError, DecisionError
from fnostab.record.settings import explain, read_yaml, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fnostab.decision.external import Record, RunsFile
    from fnostab.report.verdict import Case

__all__ = ["case_of_runs", "read_runs_file"]


def read_runs_file(path: Path) -> RunsFile:
    """Read the file that maps runs to trials.

    Raises:
        ConfigError: the file can't be read, or has another form.
    """
    from fnostab.decision.external import RunsFile

    try:
        values = read_yaml(text_of(path))
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping with control, arm, seed and metric")
    try:
        file = RunsFile.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, RunsFile)}") from None
    if (file.table is None) == (not file.experiments):
        raise ConfigError(f"{path}: say where the runs are: table: FILE.csv, or experiments: [NAME]")
    return file


def case_of_runs(path: Path, tracking_uri: str | None = None) -> Case:
    """Judge the runs that a file describes; nothing is written to them.

    Raises:
        FnostabError: the file, the table or the store can't be read, or runs can't be told apart.
    """
    from fnostab.cli.decide import judge
    from fnostab.decision.commands import Source
    from fnostab.decision.external import trials_of

    file = read_runs_file(path)
    if file.table is not None:
        records = list(_rows(path.parent / file.table))
    else:
        from fnostab.cli.options import store_to_read
        from fnostab.tracking import foreign_runs

        experiments = (file.experiments,) if isinstance(file.experiments, str) else file.experiments
        records = list(foreign_runs(store_to_read(tracking_uri), experiments, file.names))
    runs = trials_of(records, file)
    lines = [f"{path}: {runs.lines[0]}", *runs.lines[1:]]
    again = shlex.join(["fnostab", "decide", "--runs", str(path)])
    return judge({"a": runs.stage}, {"a": runs}, source=Source(again=again), judged=lines)


def _rows(path: Path) -> Iterator[Record]:
    """Rows of a CSV file, each value under ``columns.NAME``."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file, strict=True):
                yield {f"columns.{name}": value for name, value in row.items() if name is not None and value != ""}
    except OSError as error:
        raise DecisionError(f"can't read {path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DecisionError(f"{path} is not a CSV file in UTF-8: {error}") from error
