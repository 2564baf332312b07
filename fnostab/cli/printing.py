"""Printing texts of others: what a terminal would carry out is shown as an escape.

Names, reasons and messages come from tables, journals and servers of other people. A control character in one could
move the cursor, hide a line or set the terminal's title.
"""

import logging
import re
from typing import Any

import click

__all__ = ["echo", "show_warnings_safely", "visible"]

# C0 and C1 but for tab and line feed, marks that reverse the order of text, and halves of surrogate pairs
_CARRIED_OUT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """``text`` with its control characters written as escapes."""
    return _CARRIED_OUT.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def echo(message: str = "", *, err: bool = False) -> None:
    """Print a line to standard output or error."""
    click.echo(visible(message), err=err)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def show_warnings_safely() -> None:
    """Let warnings of a log that nobody has set up pass through `visible` too."""
    last: Any = logging.lastResort
    last.setFormatter(_Formatter())
