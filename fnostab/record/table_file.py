"""CSV file of a table.

A table that `write_table` wrote gives the same answer when it is read again, even after pandas or R have read and
written it: it also holds the trials' quality measures (``measure.NAME``) and the facts of the study
(``study.NAME``). A user's own table needs only the columns `REQUIRED`.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from fnostab.errors import DecisionError, os_errors_as
from fnostab.record.csv_text import check_decimals, csv_errors, parse_csv, parse_number, read_text
from fnostab.record.numbers import LARGEST
from fnostab.record.outcomes import Outcome
from fnostab.record.safe_files import write_whole
from fnostab.record.settings import shown
from fnostab.record.table import STAGES, Table, TrialRow, check_arm_names, known_outcome
from fnostab.record.table_study import ABSENT, PREFIX, REPEATED, TableStudy, is_missing, parse_json

COLUMNS = ("stage", "arm", "seed", "outcome", "val_loss", "failure_step", "last_step")
REQUIRED = ("arm", "seed", "outcome", "val_loss")
MORE_COLUMNS = ("scheduled_steps", "rules_held", "grad_ratio", "run_id")
NOT_JUDGED = "not_judged"  # column for rules that could not be judged
MEASURE = "measure."
T = TypeVar("T")
MOST_DIGITS = 39  # of an integer, as of 128 bits
FLOAT_DIGITS = 15  # of one that another program wrote as a float
SEEDS = TypeAdapter[Mapping[str, tuple[int, ...]]](dict[str, tuple[Annotated[int, Field(ge=0)], ...]])  # by arm
ARMS = TypeAdapter[Mapping[str, str]](dict[str, str])
_FORMULA = re.compile(r"[=+\-@\t\r]")  # a spreadsheet may run a cell that starts like this


def read_table(path: str | Path) -> Table:
    """Read a CSV file with the columns `REQUIRED` in any order and those that `write_table` adds; ignore others.

    Without a column ``stage`` all trials are of stage a.

    Raises:
        DecisionError: the file can't be read, or a row is not valid; the message names the row.
    """
    stages: dict[str, list[TrialRow]] = {}
    seen: dict[tuple[str, str, int], int] = {}
    with csv_errors(path):
        records = list(_records(path))
    study = TableStudy.parse(_constants([fields for _, fields in records], str(path)), str(path))
    names = _measure_columns(records[0][1] if records else {}, study)
    missing: dict[str, Mapping[str, tuple[int, ...]]] = {}
    same_settings: dict[str, Mapping[str, str]] = {}
    for line, fields in records:
        where = f"{path}, line {line}"
        stage, row = _parse(fields, names, where)
        key = (stage, row.arm, row.seed)
        if key in seen:
            raise DecisionError(f"{where}: stage {stage}, arm {row.arm}, seed {row.seed} is on line {seen[key]} too")
        seen[key] = line
        stages.setdefault(stage, []).append(row)
        if not is_missing(fields.get(ABSENT)):
            missing[stage] = _mapping(SEEDS, fields[ABSENT] or "", f"{where}: {ABSENT}")
        if not is_missing(fields.get(REPEATED)):
            same_settings[stage] = _mapping(ARMS, fields[REPEATED] or "", f"{where}: {REPEATED}")
    if "a" not in stages:
        raise DecisionError(f"{path} has no trial of stage a")
    missing = {  # rows may have been added since
        stage: {arm: tuple(seed for seed in seeds if (stage, arm, seed) not in seen) for arm, seeds in of_stage.items()}
        for stage, of_stage in missing.items()
    }
    return Table(stages, study, missing, same_settings, path=str(path))


def write_table(path: str | Path, table: Table) -> None:
    """Write a table in the form that `read_table` reads.

    Raises:
        DecisionError: the file can't be written, a spreadsheet would run a name as a formula, or `check_arm_names`
            refuses an arm.
    """
    rows = [(stage, row) for stage, trials in table.stages.items() for row in trials]
    measures = list(dict.fromkeys(name for _, row in rows for name in row.measures))
    constants = table.study.cells() if table.study else {}
    more = [NOT_JUDGED] if any(row.not_judged for _, row in rows) else []
    of_stage = {
        stage: [json.dumps(column[stage]) if stage in column else "" for column in (table.missing, table.same_settings)]
        for stage in table.stages
    }
    header = [*COLUMNS, *MORE_COLUMNS, *(MEASURE + name for name in measures), *more, *constants, ABSENT, REPEATED]
    cells = [
        [*_cells(s, row, measures), *("; ".join(row.not_judged) for _ in more), *constants.values(), *of_stage[s]]
        for s, row in rows
    ]
    for text in {row.arm for _, row in rows} | {row.run_id or "" for _, row in rows} | set(constants.values()):
        if _FORMULA.match(text):
            raise DecisionError(
                f"the name {text!r} can't be written to a table, a spreadsheet would take it for a formula: "
                "rename it so that it starts with a letter or digit"
            )
    check_arm_names(row.arm for _, row in rows)
    written = io.StringIO(newline="")
    csv.writer(written).writerows([header, *cells])
    with os_errors_as(DecisionError, f"can't write {path}"):
        target = Path(path).resolve()
        if target.is_file() or not target.exists():
            write_whole(target, written.getvalue())  # a full disk leaves the old table intact
        else:
            target.write_text(written.getvalue(), encoding="utf-8", newline="")  # such as /dev/stdout


def _records(path: str | Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Line number and values by column of each row."""
    text = read_text(path)
    columns, rows = parse_csv(text, path)
    _check_header(columns, path)
    line, fields = 1, dict[str, str | None]()
    for line, fields in rows:
        yield line, fields
    if None in fields.values() and not text.endswith("\n"):
        raise DecisionError(f"{path} ends within line {line}: restore it, or end that line")


def _check_header(columns: Sequence[str], path: str | Path) -> None:
    for column in REQUIRED:
        if column not in columns:
            raise DecisionError(
                f"{path}, line 1, has no column {column!r}; needed: {', '.join(REQUIRED)}; "
                "a table with other columns is mapped by a file given with --runs"
            )


def _cells(stage: str, row: TrialRow, measures: Iterable[str]) -> list[str]:
    def number(value: float | None) -> str:
        return "" if value is None else repr(float(value))

    steps = ["" if step is None else str(step) for step in (row.failure_step, row.last_step, row.scheduled_steps)]
    held = "; ".join(map(str, row.rules_held))
    main = [stage, row.arm, str(row.seed), str(row.outcome), number(row.loss), *steps]
    return [*main, held, number(row.grad_ratio), row.run_id or "", *(number(row.measures.get(m)) for m in measures)]


def _constants(records: Sequence[Mapping[str, str | None]], path: str) -> dict[str, str]:
    """Columns of the study, each with a single value."""
    found: dict[str, str] = {}
    for name in [n for n in (records[0] if records else {}) if n.startswith(PREFIX) and n not in (ABSENT, REPEATED)]:
        values = {(fields[name] or "").strip() for fields in records}
        if len(values) > 1:
            found_values = ", ".join(repr(v[:80]) for v in sorted(values)[:3])
            raise DecisionError(f"{path}: {name} has more than one value: {found_values}; write the same in each row")
        found[name] = values.pop()
    return found


def _mapping(kind: TypeAdapter[T], text: str, what: str) -> T:
    try:
        return kind.validate_python(parse_json(text, what))
    except ValidationError as error:
        raise DecisionError(f"{what}={shown(text)} is not accepted: {error.errors()[0]['msg']}") from None


def _measure_columns(columns: Iterable[str], study: TableStudy | None) -> dict[str, str]:
    """Names of quality measures by column; R may have inserted dots, as in ``measure.val.accuracy``."""
    known = {re.sub(r"[^A-Za-z0-9._]", ".", name): name for name in (study.measures if study else ())}
    names = {column: column.removeprefix(MEASURE) for column in columns if column.startswith(MEASURE)}
    return {column: known.get(name, name) for column, name in names.items()}


def _parse(fields: Mapping[str, str | None], measures: Mapping[str, str], where: str) -> tuple[str, TrialRow]:
    text = {
        column: " ".join((fields.get(column) or "").split())
        for column in (*COLUMNS, *MORE_COLUMNS, NOT_JUDGED, *measures)
    }
    named = ("stage", "arm", "outcome", "val_loss")  # shown as written if they are not accepted
    text |= {column: "" for column, cell in text.items() if column not in named and is_missing(cell)}
    text["stage"] = text["stage"] if "stage" in fields else STAGES[0]
    if text["stage"] not in STAGES:
        raise DecisionError(f"{where}: stage={text['stage']!r} is not accepted; accepted: {', '.join(STAGES)}")
    if is_missing(text["arm"]):
        raise DecisionError(f"{where}: the arm is missing, got {text['arm']!r}: name it")
    seed = _whole("seed", text["seed"], where)
    if seed is None:
        raise DecisionError(f"{where}: the seed is missing")
    outcome = known_outcome(text["outcome"], where)
    loss = _number("val_loss", text["val_loss"], where)
    if outcome is Outcome.CONVERGED and loss is None:
        given = f"a converged trial needs a val_loss, got {text['val_loss']!r}"
        raise DecisionError(f"{where}: {given}: expected a finite number, at most {LARGEST:g}")
    check_decimals(fields, {"val_loss", *measures}, where)
    values = {name: _number(column, text[column], where) for column, name in measures.items()}
    return text["stage"], TrialRow(
        arm=text["arm"],
        seed=seed,
        outcome=outcome,
        loss=loss,
        failure_step=_whole("failure_step", text["failure_step"], where),
        last_step=_whole("last_step", text["last_step"], where),
        scheduled_steps=_whole("scheduled_steps", text["scheduled_steps"], where),
        measures={name: value for name, value in values.items() if value is not None},
        rules_held=tuple(known_outcome(rule.strip(), where) for rule in text["rules_held"].split(";") if rule.strip()),
        grad_ratio=_number("grad_ratio", text["grad_ratio"], where),
        run_id=text["run_id"] or None,
        not_judged=tuple(reason.strip() for reason in text[NOT_JUDGED].split(";") if reason.strip()),
    )


def _number(name: str, text: str, where: str) -> float | None:
    """Parse a number; None if it is missing or, as for a failed trial, not finite."""
    if is_missing(text):
        return None
    value = parse_number(name, text, where)
    return value if math.isfinite(value) else None


def _whole(name: str, text: str, where: str) -> int | None:
    if not text:
        return None
    digits = re.sub(r"\.0*$", "", text)  # pandas writes a whole number as 500.0 where a row has none
    if re.fullmatch(r"\d(\.\d+)?[eE]\+?\d\d?", text) and float(text).is_integer():  # and R 100000 as 1e+05
        digits = str(int(float(text)))
    most = MOST_DIGITS if digits == text else FLOAT_DIGITS
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= most):
        shown = repr(text[:40])
        raise DecisionError(f"{where}: {name}={shown} is not a whole number from 0 (at most {most} digits)")
    return int(digits)
