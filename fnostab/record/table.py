"""The table that a decision is made from: one row a trial, from MLflow or from a CSV file.

A table that `write_table` made has a column ``check``: in each row the CRC-32 of the number of rows,
of the rows above and of its own. What is read from it is what was written, down to the last digit and
row, or it is refused: an accidental change goes by unseen about once in 4 billion. A table without
that column, as people write them, is only checked for what can be a trial.
"""

import csv
import io
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fnostab.errors import DecisionError
from fnostab.record.outcomes import EXCLUDED, FAILURES, TRAINING_OUTCOMES, Outcome

__all__ = ["COLUMNS", "TrialRow", "read_table", "write_table"]

COLUMNS = ("stage", "arm", "seed", "outcome", "val_loss", "failure_step", "last_step")
STAGES = ("a", "b")
RUN_ID = "run_id"
CHECK = "check"
LARGEST_BYTES = 50_000_000  # far above any study: a file that is none must not fill the memory
MOST_DIGITS = 15  # of a whole number
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_CHECK_CELL = re.compile(r"crc32:[0-9a-f]{8}", re.ASCII)
_FORMULA = re.compile(r"[=+\-@\t\r]")  # a spreadsheet may carry out a cell that starts so


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study.

    Attributes:
        loss: the study's primary metric; None if the trial has none.
        failure_step: 0-based optimiser step of the failure, None if it did not fail.
        last_step: 0-based last step that was recorded, None if there is none.
        ssim_amp: amplitude SSIM on the validation object.
        amplitude_spread: of the last reconstruction, over the truth's.
        rules_held: every outcome rule that held, not only the one that named the outcome.
        grad_ratio: p99 over median of the gradient norm in the last half of the run.
        run_id: MLflow run, None if the row does not come from MLflow.
    """

    arm: str
    seed: int
    outcome: Outcome
    loss: float | None = None
    failure_step: int | None = None
    last_step: int | None = None
    ssim_amp: float | None = None
    amplitude_spread: float | None = None
    rules_held: tuple[Outcome, ...] = ()
    grad_ratio: float | None = None
    run_id: str | None = None

    @property
    def counts(self) -> bool:
        """Whether it takes part in rates and medians."""
        return self.outcome in TRAINING_OUTCOMES

    @property
    def failed(self) -> bool:
        """Whether its training failed."""
        return self.outcome in FAILURES

    @property
    def excluded(self) -> bool:
        """Whether it ended without a training outcome."""
        return self.outcome in EXCLUDED


def read_table(path: str | Path) -> dict[str, list[TrialRow]]:
    """Trials by stage from a CSV file with the columns `COLUMNS`, in any order.

    Columns ``run_id`` and ``check``, as `write_table` makes them, are read too; others are ignored.

    Raises:
        DecisionError: it can't be read, it was changed since it was written, or a row is not
            accepted; the message names the row.
    """
    stages: dict[str, list[TrialRow]] = {}
    seen: dict[tuple[str, str, int], int] = {}
    try:
        records = list(_records(path))
    except OSError as error:
        raise DecisionError(f"can't read {path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DecisionError(f"{path} is not a CSV file in UTF-8: {error}") from error
    for line, fields in records:
        where = f"{path}, line {line}"
        stage, row = _parse(fields, where)
        key = (stage, row.arm, row.seed)
        if key in seen:
            raise DecisionError(f"{where}: stage {stage}, arm {row.arm}, seed {row.seed} is on line {seen[key]} too")
        seen[key] = line
        stages.setdefault(stage, []).append(row)
    _check_unchanged(records, path)
    if "a" not in stages:
        raise DecisionError(f"{path} has no trial of stage a")
    return stages


def write_table(path: str | Path, stages: Mapping[str, Iterable[TrialRow]]) -> None:
    """Write trials by stage as `read_table` reads them, with their MLflow runs in a column ``run_id``.

    Raises:
        DecisionError: the file can't be written, or a name is one that a spreadsheet would carry out.
    """
    cells = [_cells(stage, row) for stage, rows in stages.items() for row in rows]
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, RUN_ID, CHECK])
            writer.writerows([*row, check] for row, check in zip(cells, _checks(cells), strict=True))
    except OSError as error:
        raise DecisionError(f"can't write {path}: {error.strerror}") from error


def _records(path: str | Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Line number and values by column of each row."""
    with open(path, "rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise DecisionError(f"{path} is larger than {LARGEST_BYTES // 1_000_000} MB: it is no table of trials")
    text = io.StringIO(data.decode("utf-8-sig"), newline="")  # Excel begins with a mark
    reader = csv.DictReader(text, strict=True, skipinitialspace=True)
    _check_header(reader.fieldnames or (), path)
    fields: dict[str, str | None] = {}
    for fields in reader:
        if None in fields:
            raise DecisionError(
                f"{path}, line {reader.line_num}: more values than columns; decimals are written with a point"
            )
        yield reader.line_num, fields
    if None in fields.values() and not data.endswith(b"\n"):
        raise DecisionError(f"{path} ends within line {reader.line_num}: restore it, or end that line")


def _cells(stage: str, row: TrialRow) -> list[str]:
    """What stands in the columns `COLUMNS` and ``run_id``."""
    for text in (row.arm, row.run_id or ""):
        if _FORMULA.match(text):
            raise DecisionError(
                f"the name {text!r} can't be written to a table, a spreadsheet would take it for a formula: "
                "rename it so that it starts with a letter or digit"
            )
    loss = "" if row.loss is None else repr(float(row.loss))
    steps = ["" if step is None else str(step) for step in (row.failure_step, row.last_step)]
    return [stage, row.arm, str(row.seed), str(row.outcome), loss, *steps, row.run_id or ""]


def _checks(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The column ``check`` of ``rows``, each of which has what `_cells` gives."""
    running = zlib.crc32(str(len(rows)).encode())
    for row in rows:
        running = zlib.crc32("\x1f".join(cell.strip() for cell in row).encode(), running)
        yield f"crc32:{running:08x}"


def _check_unchanged(records: Sequence[tuple[int, Mapping[str, str | None]]], path: str | Path) -> None:
    """Compare the column ``check``, which is known by its cells too: the header may be what was changed."""
    columns = {name for _, fields in records for name, text in fields.items() if _CHECK_CELL.fullmatch(text or "")}
    if not columns and all(CHECK not in fields for _, fields in records):
        return
    rows = [[fields.get(column) or "" for column in (*COLUMNS, RUN_ID)] for _, fields in records]
    for (line, fields), check in zip(records, _checks(rows), strict=True):
        if columns - {CHECK} or fields.get(CHECK) != check:
            raise DecisionError(
                f"{path}, line {line}, or the number of rows, was changed since `fnostab export` wrote it: "
                f"export it again, or delete the column {CHECK!r} to judge it as it is"
            )


def _check_header(columns: Sequence[str], path: str | Path) -> None:
    for column in COLUMNS:
        if columns.count(column) != 1:
            has = "has no column" if column not in columns else "has twice the column"
            raise DecisionError(f"{path}, line 1, {has} {column!r}; needed: {', '.join(COLUMNS)}")


def _parse(fields: Mapping[str, str | None], where: str) -> tuple[str, TrialRow]:
    text = {column: (fields[column] or "").strip() for column in COLUMNS}
    if text["stage"] not in STAGES:
        raise DecisionError(f"{where}: stage={text['stage']!r} is not accepted; accepted: {', '.join(STAGES)}")
    if not text["arm"]:
        raise DecisionError(f"{where}: the arm is missing")
    if text["outcome"] not in list(Outcome):
        raise DecisionError(f"{where}: outcome={text['outcome']!r} is not known; accepted: {', '.join(Outcome)}")
    outcome = Outcome(text["outcome"])
    loss = _loss(text["val_loss"], where)
    if outcome is Outcome.CONVERGED and loss is None:
        raise DecisionError(f"{where}: a converged trial needs a val_loss, got {text['val_loss']!r}")
    seed = _whole("seed", text["seed"], where)
    if seed is None:
        raise DecisionError(f"{where}: the seed is missing")
    failure_step, last_step = (_whole(name, text[name], where) for name in ("failure_step", "last_step"))
    run_id = (fields.get(RUN_ID) or "").strip() or None
    return text["stage"], TrialRow(text["arm"], seed, outcome, loss, failure_step, last_step, run_id=run_id)


def _loss(text: str, where: str) -> float | None:
    """A loss; None if it is empty or, as a failed trial's may be, not finite."""
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise DecisionError(f"{where}: val_loss={text!r} is not a number")
    value = float(text)
    if value < 0:
        raise DecisionError(f"{where}: val_loss={text} is negative; losses are 0 or above")
    return value if math.isfinite(value) else None


def _whole(name: str, text: str, where: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        shown = repr(text[:40])
        raise DecisionError(f"{where}: {name}={shown} is not a whole number from 0 (at most {MOST_DIGITS} digits)")
    return int(text)
