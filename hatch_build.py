"""README as a package index shows it: links and pictures that are files of the repository would be broken there."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"!\[([^\]]*)\]\((?!http)[^)]*\)")
LINK = re.compile(r"\[([^\]]*)\]\((?!http)[^)]*\)")
COMMENT = re.compile(r"<!--.*?-->\n*", re.DOTALL)


class ReadmeOfAnIndex(MetadataHookInterface):
    """Sets the description of the package."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put README into the metadata."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": index_text(text)}


def index_text(readme: str) -> str:
    """README with each picture as the words that say what it shows, and each link to a file as its text."""
    return LINK.sub(r"\1", PICTURE.sub(r"**\1.**", COMMENT.sub("", readme)))
