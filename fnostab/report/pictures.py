"""Draw pictures for a web page and a Markdown file: each is drawn once and kept in both forms."""

import base64
import html
import io
import re
from dataclasses import dataclass

import matplotlib
import matplotlib.image
from matplotlib.figure import Figure

from fnostab.figures import INK

QUALITY = 80  # of WebP: a tenth of the PNG that a run keeps
DOTS_PER_INCH = 160  # of drawings beside a Markdown file

_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_FONTS = re.compile(r"(font: [^;\"']*?)'[^;\"]*?sans-serif")
_SIZE = re.compile(r'(<svg[^>]*?) width="([\d.]+pt)" height="[^"]*"')
_ID = re.compile(r'(\bid="|url\(#|href="#)')


@dataclass(frozen=True)
class Picture:
    """A picture as a file and as an HTML element.

    Attributes:
        file_name: name of the file beside the Markdown.
        alt: alternative text, for readers who do not see the picture.
        caption: plain text under the picture.
        content: bytes of the file.
        element: the picture as an HTML element that needs no file; its text is escaped.
    """

    file_name: str
    alt: str
    caption: str
    content: bytes
    element: str


def drawing(figure: Figure, name: str, *, alt: str, caption: str = "") -> Picture:
    """Convert a figure to inline SVG, drawn in the colour of the page's text, and to PNG on white."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DOTS_PER_INCH)
    svg = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fnostab"}):
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Picture(f"{name}.png", alt, caption, png.getvalue(), _inline(svg.getvalue(), name, alt))


def photograph(png: bytes, name: str, *, alt: str, caption: str = "") -> Picture:
    """Compress a PNG picture as WebP."""
    pixels = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3].copy()
    packed = io.BytesIO()
    matplotlib.image.imsave(packed, pixels, format="webp", pil_kwargs={"quality": QUALITY})
    data = base64.b64encode(packed.getvalue()).decode()
    height, width = pixels.shape[:2]
    size = f'width="{width}" height="{height}"'
    element = f'<img src="data:image/webp;base64,{data}" alt="{html.escape(alt)}" {size}>'
    return Picture(f"{name}.webp", alt, caption, packed.getvalue(), element)


def _inline(svg: str, name: str, alt: str) -> str:
    """Convert an SVG document to an element of an HTML page: unique ids, and the page's font and text colour."""
    svg = _METADATA.sub("", _PROLOGUE.sub("", svg))
    svg = _SIZE.sub(r'\1 style="--width: \2"', svg, count=1).replace(INK, "currentColor")
    svg = _FONTS.sub(r"\1var(--font)", svg)
    svg = _ID.sub(rf"\g<1>{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)
