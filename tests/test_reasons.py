"""The corpus of the book's sentences, and the page of queries and coloured words."""

import json
import re

import torch

from lfx_utils.chapters import corpus, reasons


def test_sentences_are_read_from_pages_and_markdown_cells_alone(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book" / "one.md").write_text(
        "# A heading that is long enough to be one sentence.\n\nThe *first* plain sentence of [a page](there) stands "
        "here. Too short.\nHere $x$ is a formula and so this is none.\n\n```python\nThe code is not a sentence of it.\n"
        "```\n\n- An item is a sentence of its own here.\n- {cite}`who` says so and it is left out.\n"
        "- You need {doc}`06_relax` and this sentence goes, too.\n"
        "- You need {doc}`the sixth chapter <06_relax>` and this one stays.\n",
        encoding="utf-8",
    )
    cells = [
        {
            "cell_type": "markdown",
            "source": ["The first plain sentence of a page stands here. ", "A second one is in a notebook's cell."],
        },
        {"cell_type": "code", "source": ["The code of a cell is not read here."]},
    ]
    (tmp_path / "notebooks" / "two.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    found, pages, provenance = corpus.sentences_of_the_book(root=tmp_path)
    assert dict(zip(found, pages)) == {
        "The first plain sentence of a page stands here.": "one",
        "An item is a sentence of its own here.": "one",
        "You need the sixth chapter and this one stays.": "one",
        "A second one is in a notebook's cell.": "two",
    }
    assert provenance == "4 sentences of 2 pages of this book."


def test_without_a_clone_a_short_list_stands_in(tmp_path):
    found, pages, provenance = corpus.sentences_of_the_book(root=tmp_path)
    assert len(found) == len(pages) > 9 and "there is no clone" in provenance


def test_the_books_own_sentences_hold_no_mark_up():
    found, _, _ = corpus.sentences_of_the_book()
    assert len(found) > 300 and not [each for each in found if re.search(r"[`{}$\\]|\]\(|\*\*", each)]


def test_words_are_as_deep_as_their_scores_and_escaped():
    text = reasons.words(["<b>", "שלום", "c"], torch.tensor([0.5, -1.0, 0.0]))
    assert "&lt;b&gt;" in text and text.count('dir="auto"') == 3
    assert re.findall(r"rgba\([\d,]+,([\d.]+)\)", text) == ["0.38", "0.75", "0.00"]
    assert 'class="minus" title="-1.000"' in text


def test_matrix_and_choices_can_be_reached_without_a_script():
    table = reasons.matrix(["a", "b", "d"], ["c"], torch.tensor([[0.5], [-0.25], [-0.001]]))
    assert re.findall(r">(-?\d+)</td>", table) == ["50", "-25", "0"]
    page = reasons.choices(
        {"one": table, "<two>": "second"}, legend="A query", caption="What it shows.", name="why"
    ).data
    assert page.count('type="radio"') == 2 and page.count(" checked>") == 1 and "<script" not in page
    assert "&lt;two&gt;" in page and "#why:has(#why-1:checked) .panel-1{display:block}" in page
