"""Render a report as one self-contained HTML file, and as Markdown with its pictures in separate files."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fnostab.decision import Criterion, State
from fnostab.errors import ConfigError, os_errors_as
from fnostab.record.safe_files import write_whole
from fnostab.record.settings import value_text
from fnostab.report.content import OnCase, Report
from fnostab.report.glossary import glossary
from fnostab.report.pictures import Picture
from fnostab.report.tables import outcomes_text
from fnostab.show.visible import visible

if TYPE_CHECKING:
    from fnostab.report.case import Case

HTML = "report.html"
MARKDOWN = "report.md"
PICTURES = "pictures"
MOST_COLUMNS = 6  # arms side by side on a page; more are placed one below the other

MEANINGS = {  # of criteria, for readers who have not seen the program
    "fewer_failures": "fails less often than {control}",
    "better_loss": "better median than {control}'s, of trials that did not fail (if too few: of all, failures last)",
    "loss_within_margin": "that median is worse than {control}'s by no more than the margin",
    "no_nonfinite": "no trial gave NaN or infinity",
    "grad_bounded": "gradients stayed bounded in the last half",
    "matches_stage_a": "as good as the same arm in Stage A",
}


def to_html(report: Report) -> str:
    """Render a report as one HTML page that contains its style and pictures, without scripts."""
    return environment().get_template("report.html.j2").render(report=report, glossary=glossary(report))


def to_box(case: "Case") -> str:
    """Render the first box of a report by itself, for a notebook."""
    box: Any = environment().get_template("box.html.j2").make_module({"report": OnCase(case)})
    return str(box.box())


def to_markdown(report: Report) -> str:
    """Render a report as Markdown; its pictures are files in the folder ``pictures``."""
    return environment().get_template("report.md.j2").render(report=report, glossary=glossary(report), folder=PICTURES)


def write(report: Report, folder: Path) -> list[Path]:
    """Write a report as HTML and as Markdown into ``folder``, which is created; return all files, the HTML first.

    Raises:
        ConfigError: a file can't be written.
    """
    return write_files(folder, {HTML: to_html(report), MARKDOWN: to_markdown(report)}, report.pictures)


def write_files(folder: Path, texts: Mapping[str, str], pictures: Sequence[Picture]) -> list[Path]:
    """Write texts by file name, and pictures beside them, into ``folder``; return all files, the first text first.

    Raises:
        ConfigError: they can't be written.
    """
    files = {
        **{folder / name: text.encode() for name, text in texts.items()},
        **{folder / PICTURES / picture.file_name: picture.content for picture in pictures},
    }
    with os_errors_as(ConfigError, f"can't write the report to {folder}", "name another with -o"):
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_whole(path, content)
    return list(files)


def environment(*rooms: str) -> Environment:
    """Make the Jinja environment with the templates of the report and of the packages in ``rooms``."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(room) for room in ("fnostab.report", *rooms)]),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "number": _number,
        "percent": _percent,
        "p_value": _p_value,
        "setting": value_text,
        "effect": _effect,
        "in_plain_words": _in_plain_words,
        "support": _support,
        "outcomes": outcomes_text,
        "words": lambda text: str(text).replace("_", " "),
        "md": _markdown_text,
    }
    made.filters.update(filters)
    made.globals |= {"MEANINGS": MEANINGS, "MOST_COLUMNS": MOST_COLUMNS}
    return made


def _shown(value: Any) -> Any:
    """Escape control characters in text for a template, since a terminal that prints the file would obey them."""
    if isinstance(value, str):
        return (Markup if isinstance(value, Markup) else str)(visible(value))
    return value


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _percent(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %"


def _p_value(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _effect(criterion: Criterion) -> str:
    """Write an effect with its interval: percentage points of failure rate, or ratio or difference of losses."""
    if criterion.effect is None:
        return ""
    if criterion.name == "fewer_failures":
        interval = f" [{_points(criterion.ci[0])}, {_points(criterion.ci[1])}]" if criterion.ci else ""
        return f"{_points(criterion.effect)} points{interval}"
    if not criterion.is_ratio:
        interval = f" [{criterion.ci[0]:+.3g}, {criterion.ci[1]:+.3g}]" if criterion.ci else ""
        return f"{criterion.effect:+.3g}{interval}"
    interval = f" [{criterion.ci[0]:.2f}, {criterion.ci[1]:.2f}]" if criterion.ci else ""
    return f"\N{MULTIPLICATION SIGN} {criterion.effect:.2f}{interval}"


def _points(share: float) -> str:
    points = round(100 * share)
    return f"{points:+d}" if points else "0"


def _support(criterion: Criterion) -> str:
    """Say whether a met criterion is significant; empty for one that is not met, or that no test was made of."""
    if criterion.supported is None or criterion.p is None or criterion.state is not State.MET:
        return ""
    return "significant" if criterion.supported else "could be luck"


def _in_plain_words(text: str) -> str:
    """Write the names of states and criteria in a reason as the tables do, with spaces for underscores."""
    for name in (*State, *MEANINGS):
        text = text.replace(name, name.replace("_", " "))
    return text


def _markdown_text(text: Any) -> str:
    """Escape text, so that it neither ends a table cell nor starts an element."""
    escaped = str(text).replace("\\", "\\\\").replace("<", "&lt;")
    for mark in "|*`[":
        escaped = escaped.replace(mark, f"\\{mark}")
    return " ".join(escaped.split())
