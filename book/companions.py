"""Split a chapter's page in two: what teaches, and the evidence that audits.

A notebook runs as one. A cell tagged `audit` is shown on the companion page `NAME_audit`, every other cell on the
chapter's own.
"""

import copy
import re

GLUED = "application/papermill.record/"
LINK = re.compile(r"(\w+)\.html#cell-(\d+)")


def audits(cell: dict) -> bool:
    """Say whether a cell belongs to the companion page."""
    return "audit" in cell["metadata"].get("tags", [])


def split(name: str, page: dict) -> dict[str, dict]:
    """Return a chapter's pages by name: the page alone if no cell audits, else the chapter and its companion.

    Values are glued for one page only, so each page brings along, out of sight, those that the other's cells glued.

    Args:
        name: of the chapter's notebook.
        page: the executed notebook; its last cell, the foot, is shown on both pages.
    """
    if not any(map(audits, page["cells"])):
        return {name: page}
    *cells, foot = page["cells"]
    title = next(
        found.group(1) for cell in cells if (found := re.search(r"^# +(.+)$", "".join(cell["source"]), re.MULTILINE))
    )
    teaching = [cell for cell in cells if not audits(cell)]
    auditing = [cell for cell in cells if audits(cell)]
    there = (
        "The tables of the papers beside ours, the definitions, the errata and the cards of the claims: "
        f"{{doc}}`evidence for this chapter <{name}_audit>`."
    )
    back = (
        f"# Evidence · {title}\n\nThis page audits {{doc}}`{name}`: what the papers print beside what we computed, "
        "the definitions behind the numbers, and the card of every claim. The chapter teaches the idea; both pages "
        "come from one run of one notebook."
    )
    below = {"cell_type": "markdown", "id": "to-companion", "metadata": {}, "source": there}
    above = {"cell_type": "markdown", "id": "to-chapter", "metadata": {}, "source": back}
    return {
        name: page | {"cells": [*teaching, carrier(auditing), below, foot]},
        f"{name}_audit": page | {"cells": [above, carrier(teaching), *auditing, copy.deepcopy(foot)]},
    }


def carrier(cells: list[dict]) -> dict:
    """Return a code cell that no page shows, with every value that these cells glued."""
    outputs = [
        output
        for cell in cells
        for output in cell.get("outputs", [])
        if any(kind.startswith(GLUED) for kind in output.get("data", {}))
    ]
    return {
        "cell_type": "code",
        "id": "glued",
        "execution_count": None,
        "metadata": {"tags": ["remove-cell"]},
        "outputs": copy.deepcopy(outputs),
        "source": "",
    }


def relinked(text: str, pages: dict[str, dict]) -> str:
    """Return text whose links to cells lead to the page on which each cell is now."""
    where = {
        (name.removesuffix("_audit"), cell["id"].removeprefix("mark-")): name
        for name, page in pages.items()
        for cell in page["cells"]
        if cell.get("id", "").startswith("mark-")
    }
    return LINK.sub(lambda link: f"{where.get(link.groups(), link[1])}.html#cell-{link[2]}", text)


def contents(toc: dict, pages: dict[str, dict]) -> dict:
    """Return the table of contents with each companion below its chapter."""
    toc = copy.deepcopy(toc)
    for entry in (entry for part in toc.get("parts", [toc]) for entry in part["chapters"]):
        companion = f"{entry['file'].removeprefix('notebooks/')}_audit"
        if companion in pages:
            entry.setdefault("sections", []).append({"file": f"notebooks/{companion}", "title": "Evidence"})
    return toc
