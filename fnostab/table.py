"""The table that a decision is made from: one row a trial, from MLflow or from a CSV file."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fnostab.errors import DecisionError
from fnostab.outcomes import EXCLUDED, FAILURES, TRAINING_OUTCOMES, Outcome

__all__ = ["COLUMNS", "TrialRow", "read_table", "write_table"]

COLUMNS = ("stage", "arm", "seed", "outcome", "val_loss", "failure_step", "last_step")
STAGES = ("a", "b")


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

    A column ``run_id``, as `write_table` makes it, is read too; others are ignored.

    Raises:
        DecisionError: it can't be read, or a row is not accepted; the message names the row.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # Excel begins with a mark
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            _check_header(reader.fieldnames or (), path)
            stages: dict[str, list[TrialRow]] = {}
            seen: dict[tuple[str, str, int], int] = {}
            for fields in reader:
                where = f"{path}, line {reader.line_num}"
                if None in fields:
                    raise DecisionError(f"{where}: more values than columns; decimals are written with a point")
                stage, row = _parse(fields, where)
                key = (stage, row.arm, row.seed)
                if key in seen:
                    raise DecisionError(
                        f"{where}: stage {stage}, arm {row.arm}, seed {row.seed} is on line {seen[key]} too"
                    )
                seen[key] = reader.line_num
                stages.setdefault(stage, []).append(row)
    except OSError as error:
        raise DecisionError(f"can't read {path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DecisionError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if "a" not in stages:
        raise DecisionError(f"{path} has no trial of stage a")
    return stages


def write_table(path: str | Path, stages: Mapping[str, Iterable[TrialRow]]) -> None:
    """Write trials by stage as `read_table` reads them, with their MLflow runs in a column ``run_id``.

    Raises:
        DecisionError: the file can't be written.
    """
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, "run_id"])
            for stage, rows in stages.items():
                for row in rows:
                    loss = "" if row.loss is None else repr(row.loss)
                    writer.writerow(
                        [stage, row.arm, row.seed, row.outcome, loss, row.failure_step, row.last_step, row.run_id]
                    )
    except OSError as error:
        raise DecisionError(f"can't write {path}: {error.strerror}") from error


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
    run_id = (fields.get("run_id") or "").strip() or None
    return text["stage"], TrialRow(text["arm"], seed, outcome, loss, failure_step, last_step, run_id=run_id)


def _loss(text: str, where: str) -> float | None:
    """A loss; None if it is empty or, as a failed trial's may be, not finite."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise DecisionError(f"{where}: val_loss={text!r} is not a number") from None
    if value < 0:
        raise DecisionError(f"{where}: val_loss={text} is negative; losses are 0 or above")
    return value if math.isfinite(value) else None


def _whole(name: str, text: str, where: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise DecisionError(f"{where}: {name}={text!r} is not a whole number from 0")
    return int(text)
