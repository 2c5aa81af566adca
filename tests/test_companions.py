"""One notebook, two pages: no cell is lost, glued values reach both, links to cells find them; drawings are put in."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))
import companions  # noqa: E402
import drawings  # noqa: E402


def cell(source: str, *tags: str, kind: str = "markdown", glued: str = "", name: str = "") -> dict:
    made = {"cell_type": kind, "id": name or source[:8], "metadata": {"tags": list(tags)}, "source": source}
    data = {companions.GLUED + "text/plain": glued} if glued else {"text/plain": "shown"}
    output = {"output_type": "display_data", "data": data, "metadata": {"scrapbook": {"name": glued}}}
    return made | ({"outputs": [output], "execution_count": 1} if kind == "code" else {})


PAGE = {
    "cells": [
        cell("# Chapter 2 · Which features?"),
        cell("glue('a')", kind="code", glued="a"),
        cell("## A table", "audit"),
        cell('<div id="cell-7"></div>', "audit", name="mark-7"),
        cell("glue('b')", "audit", kind="code", glued="b"),
        cell('<div id="cell-8"></div>', name="mark-8"),
        cell("the foot"),
    ],
    "metadata": {},
}


def names(page: dict) -> list[str]:
    return [o["metadata"]["scrapbook"]["name"] for cell in page["cells"] for o in cell.get("outputs", [])]


def test_every_cell_is_on_one_page_and_every_glued_value_on_both():
    pages = companions.split("two", PAGE)
    assert list(pages) == ["two", "two_audit"]
    shown = [cell["source"] for page in pages.values() for cell in page["cells"]]
    assert all(shown.count(cell["source"]) == 1 for cell in PAGE["cells"][:-1])
    assert [page["cells"][-1]["source"] for page in pages.values()] == ["the foot"] * 2
    assert [sorted(names(page)) for page in pages.values()] == [["a", "b"]] * 2
    carriers = [cell for page in pages.values() for cell in page["cells"] if cell["id"] == "glued"]
    assert [cell["metadata"]["tags"] for cell in carriers] == [["remove-cell"]] * 2
    first = pages["two_audit"]["cells"][0]["source"]
    assert first.startswith("# Evidence · Chapter 2 · Which features?\n") and "{doc}`two`" in first
    assert any("{doc}`evidence for this chapter <two_audit>`" in cell["source"] for cell in pages["two"]["cells"])


def test_a_chapter_without_audit_stays_as_it_is():
    page = PAGE | {"cells": [cell for cell in PAGE["cells"] if not companions.audits(cell)]}
    assert companions.split("two", page) == {"two": page}


def test_links_to_cells_follow_them():
    pages = companions.split("two", PAGE)
    text = '<a href="two.html#cell-7"> <a href="../notebooks/two.html#cell-8"> <a href="one.html#cell-7">'
    assert companions.relinked(text, pages) == (
        '<a href="two_audit.html#cell-7"> <a href="../notebooks/two.html#cell-8"> <a href="one.html#cell-7">'
    )


def test_a_companion_stands_below_its_chapter_in_the_contents():
    toc = {"root": "book/index", "parts": [{"chapters": [{"file": "notebooks/two"}, {"file": "notebooks/one"}]}]}
    made = companions.contents(toc, companions.split("two", PAGE))
    assert made["parts"][0]["chapters"] == [
        {"file": "notebooks/two", "sections": [{"file": "notebooks/two_audit", "title": "Evidence"}]},
        {"file": "notebooks/one"},
    ]
    assert "sections" not in json.dumps(toc)


def test_drawings_are_put_in_with_their_words(tmp_path):
    folder = tmp_path / "_static" / "drawings"
    folder.mkdir(parents=True)
    (folder / "one.svg").write_text(
        '<?xml version="1.0"?>\n<svg viewBox="0 0 9 9">\n<title>T</title>\n\n<path/></svg>', encoding="utf-8"
    )
    for address in ("_static/drawings/one.svg", "../book/_static/drawings/one.svg"):
        made = drawings.inlined(f'Before.\n\n![A "path"]({address})\n\nAfter.', tmp_path)
        assert '<svg role="img" aria-label="A &quot;path&quot;" viewBox="0 0 9 9">' in made
        assert "<?xml" not in made and "<title>" not in made
        assert made.startswith("Before.\n\n```{raw} html\n") and made.endswith("\n```\n\nAfter.")
    assert drawings.inlined("![a photograph](_static/card.png)", tmp_path) == "![a photograph](_static/card.png)"
    with pytest.raises(FileNotFoundError):
        drawings.inlined("![gone](_static/drawings/gone.svg)", tmp_path)
