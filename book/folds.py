"""Which code a page folds, and the label that says what the fold holds."""

import ast
import re
from collections import Counter

DRAWS = re.compile(r"\b(plt|axe?s?|fig|figure)\.")
HIDDEN = {"hide-input", "hide-cell"}
LENGTH = 60  # characters of a caption that a label repeats


def purpose(source: str, metadata: dict) -> str:
    """Return what a cell does besides teaching: it sets up, draws, tabulates or records; empty where it teaches.

    Args:
        source: the cell's code.
        metadata: the cell's metadata; a figure's caption stands there.
    """
    if "teaches" in metadata.get("tags", []):  # the reader is to see it, whatever it looks like
        return ""
    if figure := metadata.get("mystnb", {}).get("figure"):
        return f"draw “{shortened(figure.get('caption', ''))}”"
    if "google.colab" in source:
        return "fetch the edition on Colab"
    if "ledger.record(" in source:
        return "record the claims"
    code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    statements = ast.parse(code).body
    if not statements or isinstance(statements[0], ast.Import | ast.ImportFrom):
        return "imports and set-up"
    if DRAWS.search(source):
        return "functions that draw" if isinstance(statements[-1], ast.FunctionDef) else "draw the figure"
    if any(isinstance(one, ast.FunctionDef | ast.ClassDef) for one in statements):
        return ""
    last = statements[-1]
    called = ast.unparse(last.value.func) if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) else ""
    if called.startswith("glue"):
        return "put the numbers into the text"
    return "show the table" if called.startswith(("plots.", "viewer.", "display", "HTML")) else ""


def shortened(caption: str) -> str:
    """Return the beginning of a caption: its first word and what follows up to a stop, to a whole word."""
    plain = re.sub(r"[*`$\\{}]", "", caption)
    first = re.match(r"\S*[^.:;(]*", plain)[0].strip()
    return first if len(first) <= LENGTH else first[:LENGTH].rsplit(" ", 1)[0] + " …"


def labels(cells: list[dict]) -> list[str]:
    """Return a label for every cell of a page, no two alike; empty where the code stays visible.

    A cell may bring its own. Where two folds do the same, the heading above each tells them apart, and a number if
    that is the same, too.
    """
    found, heading = [], ""
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            titles = re.findall(r"^#+ +(.+?)\s*$", source, re.MULTILINE)
            heading = re.sub(r"[`$\\{}]", "", titles[-1]) if titles else heading
        own = cell["metadata"].get("mystnb", {}).get("code_prompt_show", "")
        does = purpose(source, cell["metadata"]) if cell["cell_type"] == "code" and not own else ""
        if HIDDEN & set(cell["metadata"].get("tags", [])) and not own:
            does = does or "compute"
        found.append((own, does, heading))
    often, seen, told = Counter(does for _, does, _ in found), Counter(), []
    for own, does, heading in found:
        label = own or f"Code: {does}" + (f" ({heading})" if often[does] > 1 and heading else "")
        seen[label] += 1
        told.append((label if seen[label] == 1 else f"{label}, {seen[label]}") if own or does else "")
    return told
