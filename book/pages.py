"""What the theme leaves to do on the built pages: weight, words for search engines, tables, pictures, the keyboard.

`finish` goes once over a folder of built HTML. Each function below it does one thing to one parsed page.
"""

import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag
from PIL import Image

UNUSED = re.compile(r"fontawesome\.js|thebe|THEBE_JS_URL|kernelName")
SEARCHES = re.compile(r"searchtools\.js|language_data\.js|searchindex\.js")
FORMULA = re.compile(r"\\\(|\\\[|\\begin\{")
LONGEST = 160  # characters of a description; search engines cut it about there


def finish(folder: Path) -> None:
    """Mend every page below a folder of built HTML, in place, several at once."""
    with ProcessPoolExecutor() as pool:
        list(pool.map(mend, sorted(folder.rglob("*.html")), chunksize=4))


def mend(path: Path) -> None:
    """Mend one page in place."""
    text = path.read_text(encoding="utf-8")
    if "</head>" not in text:  # a redirect, or a piece of the theme
        return
    page = BeautifulSoup(text, "html.parser")
    drop_scripts(page, searches=path.name == "search.html")
    drop_mathjax(page)
    describe(page)
    head_cells(page)
    name_folds(page)
    pictures(page, path)
    path.write_text(str(page), encoding="utf-8")


def drop_scripts(page: Tag, searches: bool = False) -> None:
    """Remove what no page uses: icons that the style sheet has as fonts, kernels, the search index of other pages."""
    seen = set()
    for tag in page.find_all(["script", "link", "meta"]):
        text = f"{tag.get('src', '')}{tag.get('href', '')}{tag.get('type', '')}{tag.string or ''}"
        same = "viewport" if tag.get("name") == "viewport" else str(tag)
        if UNUSED.search(text) or (SEARCHES.search(text) and not searches) or same in seen:
            tag.decompose()
        elif 'getItem("mode") || ""' in text:  # the theme complains on the console about a mode that is empty
            tag.string = text.replace('getItem("mode") || ""', 'getItem("mode") || "auto"')
        seen.add(same)


def drop_mathjax(page: Tag) -> None:
    """Remove MathJax from a page without a formula."""
    said = page.body.find_all(string=True) if page.body else []
    if page.select_one(".math") or any(FORMULA.search(text) for text in said if type(text) is NavigableString):
        return
    for script in page.find_all("script"):
        if "mathjax/" in script.get("src", "") or "window.MathJax" in (script.string or ""):
            script.decompose()


def describe(page: Tag) -> None:
    """Give a page a title of its own and a description: its first paragraph's beginning, up to a full stop."""
    heading = page.select_one("article h1")
    if heading is None or page.find("meta", attrs={"name": "description"}):
        return
    title = spoken(heading)
    book = page.title.string.rsplit(" — ", 1)[-1]
    page.title.string = title if title.lower() == book.lower() else f"{title} — {book}"
    first = next((text for text in map(spoken, page.select("article p")) if len(text) > 30), title)
    texts = {"name=description": beginning(first), "property=og:title": title}
    texts["property=og:description"] = texts["name=description"]
    for name, content in texts.items():
        kind, value = name.split("=")
        tag = page.find("meta", attrs={kind: value})
        if tag is None:
            tag = page.new_tag("meta", attrs={kind: value})
            page.title.insert_after(tag)
        tag["content"] = content


def spoken(tag: Tag) -> str:
    """Return a tag's text without the sign that links to a heading and without the marks of formulas."""
    text = "".join(text for text in tag.find_all(string=True) if not text.find_parent("a", class_="headerlink"))
    return " ".join(re.sub(r"\\[()\[\]]", "", text).split())


def beginning(text: str, longest: int = LONGEST) -> str:
    """Return the whole sentences that fit into so many characters; of a longer first sentence, the whole words."""
    kept = ""
    for sentence in re.split(r"(?<=[.?!]) (?=[A-Z*])", text):
        if len(f"{kept} {sentence}") > longest:
            break
        kept = f"{kept} {sentence}".strip()
    return kept or text[: longest - 2].rsplit(" ", 1)[0] + " …"


def head_cells(page: Tag) -> None:
    """Say of each head cell of a table whether it stands over a column or before a row."""
    for cell in page.select("table th"):
        if not cell.has_attr("scope"):
            cell["scope"] = "col" if cell.find_parent("thead") else "row"


def name_folds(page: Tag) -> None:
    """Give the arrows of the table of contents a name for those who hear it."""
    for summary in page.select("nav summary"):
        if not summary.get_text(strip=True):
            summary["aria-label"] = "Pages below this one"


def pictures(page: Tag, path: Path) -> None:
    """Fetch pictures when they come near, all but the first, reserve their place, and show each alone on a tap."""
    for number, picture in enumerate(page.select("article img")):
        if number:
            picture["loading"] = "lazy"
        picture["decoding"] = "async"
        file = path.parent / picture.get("src", "")
        sized = any(picture.has_attr(name) for name in ("width", "height", "style"))
        there = file.suffix in (".png", ".jpg", ".webp") and file.is_file()  # data: addresses are too long for a name
        if there and not sized:
            with Image.open(file) as image:
                picture["width"], picture["height"] = map(str, image.size)
        if there and not picture.find_parent("a"):  # small print is read on a phone that way
            picture.wrap(page.new_tag("a", href=picture["src"], attrs={"class": "lfx-alone"}))
