"""Rich's console for texts of others, and plain lines on it."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fnostab.show.visible import visible

__all__ = ["Console", "say", "timed"]


class Console(RichConsole):
    """Rich's console, in which only Rich's own styles and movements reach the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """Make a styled text of a string, as wide as it is shown."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object as segments whose texts hold no control characters."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


@contextmanager
def timed(console: RichConsole, doing: str) -> Iterator[None]:
    """Say what is being done, and after it how long it took, in one line."""
    started, took = time.monotonic(), ""
    console.print(f"{doing} ...", end=" ", highlight=False, markup=False)
    try:
        yield
        took = f"{time.monotonic() - started:.1f} s"
    finally:
        console.print(took, highlight=False)


def say(console: RichConsole, *lines: str, style: str | None = None) -> None:
    """Print lines as they are, however long: no markup, no colours of numbers, and no break but the terminal's own."""
    for line in lines:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)
