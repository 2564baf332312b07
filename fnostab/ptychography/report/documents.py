"""The strategy's story and the search for a cure, as HTML and Markdown."""

from pathlib import Path

from fnostab.ptychography.report.cure import SearchReport
from fnostab.ptychography.report.story import Story
from fnostab.report.documents import HTML, PICTURES, environment, write_files

__all__ = ["write_search", "write_story"]


def write_story(story: Story, folder: Path) -> list[Path]:
    """Write ``strategy.html`` and ``strategy.md`` into ``folder``; return all files, the HTML first.

    Raises:
        ConfigError: it can't be written.
    """
    templates = environment("fnostab.ptychography.report")
    texts = {
        name: templates.get_template(f"{name}.j2").render(story=story, folder=PICTURES)
        for name in ("strategy.html", "strategy.md")
    }
    return write_files(folder, texts, story.pictures)


def write_search(search: SearchReport, folder: Path) -> list[Path]:
    """Write ``report.html`` and ``README.md`` of a search for a cure into ``folder``; return all files, the HTML first.

    Raises:
        ConfigError: they can't be written.
    """
    templates = environment("fnostab.ptychography.report")
    texts = {
        name: templates.get_template(template).render(search=search, folder=PICTURES)
        for name, template in ((HTML, "cure.html.j2"), ("README.md", "cure.md.j2"))
    }
    return write_files(folder, texts, [search.picture])
