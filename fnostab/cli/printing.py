"""Print lines that may hold untrusted text; without Rich, which is slow to import."""

import logging
from typing import Any

import click

from fnostab.show.visible import visible


def echo(message: str = "", *, err: bool = False) -> None:
    """Print a line to standard output or error."""
    click.echo(visible(message), err=err)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def show_warnings_safely() -> None:
    """Escape control characters also in the warnings that logging prints where no handler is set up."""
    last: Any = logging.lastResort
    last.setFormatter(_Formatter())
