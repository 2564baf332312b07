"""Plain lines on a console."""

from rich.console import Console

__all__ = ["say"]


def say(console: Console, *lines: str, style: str | None = None) -> None:
    """Print lines as they are, however long: no markup, no colours of numbers, and no break but the terminal's own."""
    for line in lines:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)
