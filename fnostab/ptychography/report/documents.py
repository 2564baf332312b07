"""Render the report of a whole strategy as HTML and Markdown."""

from pathlib import Path

from fnostab.ptychography.report.story import Story
from fnostab.report.documents import PICTURES, environment, write_files


def write_story(story: Story, folder: Path) -> list[Path]:
    """Write ``strategy.html`` and ``strategy.md`` with their pictures into ``folder``; return all files, HTML first.

    Raises:
        ConfigError: a file can't be written.
    """
    templates = environment("fnostab.ptychography.report")
    texts = {
        name: templates.get_template(f"{name}.j2").render(story=story, folder=PICTURES)
        for name in ("strategy.html", "strategy.md")
    }
    return write_files(folder, texts, story.pictures)
