"""Read a CSV file of trials as text by column, within size limits, and parse numbers that other programs wrote."""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from fnostab.errors import DecisionError, os_errors_as
from fnostab.record.numbers import unbounded

LARGEST_BYTES = 50_000_000  # far above any study; keeps an unrelated file from filling the memory
MOST_ROWS = 100_000  # as many trials as a study may have
MOST_CELLS = 10_000_000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DIGITS = re.compile(r"\d+([eE][+-]?\d+)?", re.ASCII)  # that may follow a decimal comma


@contextmanager
def csv_errors(path: str | Path) -> Iterator[None]:
    """Convert errors of `read_text` to a DecisionError."""
    try:
        with os_errors_as(DecisionError, f"can't read {path}"):
            yield
    except UnicodeDecodeError as error:
        raise DecisionError(
            f"{path} is not text in UTF-8 ({error}): save it as CSV in UTF-8, as `iconv -t UTF-8` does"
        ) from error


@contextmanager
def _quotes(path: str | Path, line: int) -> Iterator[None]:
    """Convert an error in the row that begins at ``line``, nearly always of its quotes, to a DecisionError."""
    try:
        yield
    except csv.Error as error:
        raise DecisionError(
            f'{path}, line {line}: a quote (") is not closed, or text follows it ({error}): close it, or double a '
            "quote that is part of a value"
        ) from error


def parse_csv(text: str, path: str | Path) -> tuple[Sequence[str], Iterator[tuple[int, dict[str, str | None]]]]:
    """Parse a CSV file of trials: its columns, then the line number and the values by column of each row.

    Raises:
        DecisionError: line 1 names no columns, the separator is not a comma, a column is named twice, or, during
            iteration, a row has more values than there are columns, or a quote that is not closed.
    """
    _check_header(text, path)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    with _quotes(path, 1):
        columns = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    if (cells := len(columns) * _lines(text)) > MOST_CELLS:
        raise DecisionError(
            f"{path} has {len(columns):,} columns and room for {cells:,} cells; a table of trials has at most "
            f"{MOST_CELLS:,}: leave out columns"
        )
    if twice := next((name for name, count in Counter(columns).items() if name and count > 1), None):
        raise DecisionError(f"{path}, line 1, has the column {twice[:80]!r} twice: rename one")

    def rows() -> Iterator[tuple[int, dict[str, str | None]]]:
        while True:
            with _quotes(path, reader.line_num + 1):
                fields = next(reader, None)
            if fields is None:
                return
            if not any(fields.values()):
                continue  # as a spreadsheet leaves below a table
            if None in fields:
                raise DecisionError(
                    f"{path}, line {reader.line_num}: more values than columns; decimals are written with a point"
                )
            yield reader.line_num, fields

    return columns, rows()


def check_decimals(fields: Mapping[str, str | None], numbers: Collection[str], where: str) -> None:
    """Refuse a row that ends early and has digits after a whole number, such as 0 and 5 of a loss 0,5.

    Args:
        fields: values by column, in the order of the columns.
        numbers: columns that may have decimals.
        where: file and line of the row.

    Raises:
        DecisionError: a value of ``numbers`` may be half of a number.
    """
    if None not in fields.values():
        return
    for (name, value), (after, digits) in pairwise(fields.items()):
        if name in numbers and _WHOLE.fullmatch((value or "").strip()) and _DIGITS.fullmatch((digits or "").strip()):
            what = f"fewer values than columns, and {name}={value!r} before {after}={digits!r}"
            raise DecisionError(f"{where}: {what}; decimals are written with a point")


def read_text(path: str | Path) -> str:
    """Read the text of a CSV file of trials, without the byte order mark that Excel writes.

    Raises:
        OSError: the file can't be read.
        UnicodeDecodeError: the file is not UTF-8.
        DecisionError: the file is larger than any table of trials.
    """
    with open(path, "rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise DecisionError(f"{path} is larger than {LARGEST_BYTES // 1_000_000} MB: it is not a table of trials")
    text = data.decode("utf-8-sig")
    if (lines := _lines(text)) > MOST_ROWS + 1:
        raise DecisionError(
            f"{path} has {lines:,} lines; a table of trials has at most {MOST_ROWS:,} and a line of names: split it"
        )
    return text


def _lines(text: str) -> int:
    return max(text.count("\n"), text.count("\r"))  # old Macs end lines with \r, Windows with \r\n


def _check_header(text: str, path: str | Path) -> None:
    """Raise DecisionError if line 1 of a CSV file is no header, as Excel's ``sep=,``, or is not separated by commas."""
    header = text.partition("\n")[0].strip("\r")
    if text.strip() and (not header.strip() or header.startswith("sep=")):
        raise DecisionError(f"{path}, line 1: expected the names of the columns, got {header!r}: remove this line")
    other = next((name for mark, name in ((";", "semicolons"), ("\t", "tabs")) if mark in header), None)
    if other and "," not in header:
        raise DecisionError(
            f"{path}: columns are separated by {other}: write them with commas, and decimals with a point, as "
            "`write.csv` of R and `to_csv` of pandas do"
        )


def parse_number(name: str, text: str, where: str) -> float:
    """Parse a number as programs write it, including NaN and infinity, which `unbounded` describes.

    Raises:
        DecisionError: the text is not a number.
    """
    if not _NUMBER.fullmatch(text.strip()):
        raise DecisionError(f"{where}: {name}={text!r} is not a number: leave it empty where there is none")
    return unbounded(float(text))
