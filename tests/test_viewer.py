"""The viewer without a kernel: what a browser gets, and that the sheet of pictures holds what was handed in."""

import base64
import io
import json
import re

import matplotlib.pyplot as plt
import pytest
import torch

from lfx_utils.chapters import viewer

ROWS = torch.rand(2, 3, 4, 5, 5, 3, generator=torch.Generator().manual_seed(0))
WORDS = [[f'image {i}, "unit" <{j}>' for j in range(3)] for i in range(2)]
ABOUT = {"titles": ("image", "unit"), "heads": list("abcd"), "caption": "A caption.", "name": "lfx-test"}


def page(**changes):
    return viewer.strips(**{"rows": ROWS, "words": WORDS, **ABOUT, **changes}).data


def test_the_sheet_holds_every_picture_in_its_place():
    png = re.search(r"base64,([A-Za-z0-9+/=]+)", page()).group(1)
    sheet = torch.as_tensor(plt.imread(io.BytesIO(base64.b64decode(png)))[..., :3])
    assert sheet.shape == (2 * 3 * 5, 4 * 5, 3)
    for outer, inner, column in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        row = 5 * (3 * outer + inner)
        found = sheet[row : row + 5, 5 * column : 5 * column + 5]
        assert (found - ROWS[outer, inner, column]).abs().max() < 1 / 255


def test_words_for_every_strip_and_labels_for_both_sliders():
    text = page()
    words = json.loads(re.search(r"words = (\[.*?\]), inner = 3", text).group(1))
    assert words == [word for part in WORDS for word in part]
    sliders = re.findall(r'type="range" min="0" max="(\d)"[^>]*aria-label="(\w+)"', text)
    assert sliders == [("1", "image"), ("2", "unit")]
    assert 'role="img" aria-label="image 0, &quot;unit&quot; &lt;0&gt;"' in text and "<noscript>" in text
    assert "http" not in text and "<0>" not in text


@pytest.mark.parametrize("bad", [{"words": WORDS[:1]}, {"words": [["one"], ["two"]]}, {"heads": ["a"]}])
def test_words_that_do_not_fit(bad):
    with pytest.raises(ValueError, match="words must be 2 lists of 3 and heads 4 strings"):
        page(**bad)
