"""The sentences of this book, as a corpus to search."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What a sentence cannot be read without is taken away with it; links and emphasis leave their words.
BLOCKS = re.compile(
    r"^(`{3,}|~{3,}|:{3,}).*?^\1|^\$\$.*?\$\$|<svg.*?</svg>|<style.*?</style>", re.MULTILINE | re.DOTALL
)
INLINE = (
    (re.compile(r"\{(?:cite|glue)[^}]*\}`[^`]*`"), "…"),
    (re.compile(r"\{(?:doc|ref|numref|eq)\}`[^`<]*`"), "…"),  # an address, whose title only the page knows
    (re.compile(r"\{[a-z:]+\}`([^`<]*)(?:<[^`]*>)?`"), r"\1"),
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"<[^>]+>|[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}"), ""),
)
END = re.compile(r"(?<=[.?!])\s+(?=[A-Z])")
FEW = (
    "A map is worth looking at where the encoder is worth explaining.",
    "An encoder has no single output to explain.",
    "A random map shows what chance alone would give.",
    "The importances of all pixels add up to the output less a constant.",
    "Masking hides a part of the image and asks what changes.",
    "The nearest training images are those whose representations lie closest.",
    "A heartbeat that is flat is not an absent one.",
    "Train your encoder twice before you say what the task made it look at.",
    "An untrained network has maps, too.",
    "The baseline is the input that stands for nothing there.",
    "Rotate the latent space and every pixel keeps its importance.",
    "Deleting the most important pixels should move the representation far.",
    "A wide interval says that the question is open.",
    "The decoder learns which pixels can be hidden.",
)


def sentences_of_the_book(least: int = 6, most: int = 16, root: Path = ROOT) -> tuple[list[str], list[str], str]:
    """Return sentences, the page that each comes from, and one line that says where all come from.

    Sentences with formulas, numbers that are computed, citations or code are left out, and so are repeated ones.

    Args:
        least, most: words of a sentence.
        root: the clone; without one a short list stands in.
    """
    found: dict[str, str] = {}
    for path in sorted([*root.glob("book/*.md"), *root.glob("notebooks/*.ipynb")]):
        for text in _texts(path):
            for sentence in _sentences(text):
                if least <= len(sentence.split()) <= most:
                    found.setdefault(sentence, path.stem)
    if not found:
        return list(FEW), ["list"] * len(FEW), f"{len(FEW)} sentences of a short list: there is no clone of the book."
    return (
        list(found),
        list(found.values()),
        f"{len(found)} sentences of {len(set(found.values()))} pages of this book.",
    )


def _texts(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [text]
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]


def _sentences(text: str) -> list[str]:
    text = BLOCKS.sub("\n\n", text)
    for pattern, kept in INLINE:
        text = pattern.sub(kept, text)
    found = []
    # A heading, an item or a table's row is a paragraph of its own.
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*#|]|\d+\.)\s)", text):
        if not re.match(r"\s*[#|:]", paragraph):
            plain = " ".join(re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "", paragraph).split())
            found += [each for each in END.split(plain) if re.fullmatch(r"[A-Z“\"][^$`{}…\\|=]*[.?!]", each)]
    return found
