"""Rich's console, made safe for untrusted text, and functions that print plain lines on it."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fnostab.show.visible import visible


class Console(RichConsole):
    """Rich's console, which escapes control characters in text, so that only Rich's own reach the terminal.

    Text is no markup either: a name such as ``mlp[relu]`` is printed as it is.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """Make a styled text of a string, with control characters escaped first so that its width is right."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object as segments whose texts hold no control characters."""
        if isinstance(renderable, Text) and (escaped := visible(renderable.plain)) != renderable.plain:
            renderable = Text(escaped, renderable.style)  # before it is wrapped, so that its width is right
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


@contextmanager
def timed(console: RichConsole, doing: str) -> Iterator[None]:
    """Print on one line what is being done and, after the block, how long it took."""
    started, took = time.monotonic(), ""
    console.print(f"{doing} ...", end=" ", highlight=False, markup=False)
    try:
        yield
        took = f"{time.monotonic() - started:.1f} s"
    finally:
        console.print(took, highlight=False)


def say(console: RichConsole, *lines: str, style: str | None = None) -> None:
    """Print lines unchanged: no markup, no coloured numbers, and long lines are left to the terminal to wrap."""
    for line in lines:
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)
