"""Put drawings into the pages themselves, so that their lines follow the theme's colour in light and dark."""

import html
import re
from pathlib import Path

IMAGE = re.compile(r"^!\[([^\]]+)\]\((?:\.\./book/)?(_static/drawings/[\w-]+\.svg)\)[ \t]*$", re.MULTILINE)


def inlined(markdown: str, book: Path) -> str:
    """Return Markdown in which a drawing on a line of its own is the SVG itself, with its words for a screen reader.

    Args:
        markdown: a page's text, or a cell's.
        book: the folder that holds `_static/drawings`.

    Raises:
        FileNotFoundError: a drawing that is not there.
    """

    def svg(found: re.Match) -> str:
        drawing = (book / found[2]).read_text(encoding="utf-8")
        drawing = re.sub(r"<\?xml.*?\?>|<!--.*?-->|<title>.*?</title>", "", drawing, flags=re.DOTALL).strip()
        words = html.escape(found[1])
        drawing = re.sub(r"<svg", f'<svg role="img" aria-label="{words}"', drawing, count=1)
        return f'```{{raw}} html\n<figure class="lfx-drawing">{drawing}</figure>\n```'

    return IMAGE.sub(svg, markdown)
