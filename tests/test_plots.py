"""Figures are looked at by people; what they say in words is tested."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from lfx_utils.chapters import plots


@pytest.mark.parametrize(("count", "folded"), [(50, False), (51, True)])
def test_many_claims_are_folded_under_their_count(count, folded):
    row = {"claim": "LF.X", "statement": "a < b", "published": "1", "ours": "1", "data": "", "verdict": "reproduced"}
    text = plots.claims(pd.DataFrame([row] * count)).data
    assert text.count("lfx-claim") == count and "a &lt; b" in text
    assert ("<details><summary>51 claims: 51 reproduced</summary>" in text) == folded


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_no_two_of_many_curves_look_alike():
    figure = plots.curves([1, 2], {str(n): ([n, n + 1], None, None) for n in range(24)}, xlabel="x", ylabel="y")
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle(), str(line._dash_pattern)) for line in
             figure.axes[0].lines}  # fmt: skip
    assert len(looks) == 24


def test_galleries_draw_every_channel():
    blue = torch.zeros(1, 4, 2, 2)
    blue[:, 2], blue[:, 3, 0] = 1, 1  # opaque in the upper row alone
    rows = {"grey": torch.ones(1, 1, 2, 2), "colour": blue[:, :3], "opacity": blue, "scores": -torch.ones(1, 7, 2, 2)}
    grey, colour, opacity, scores = (axes.images[0] for axes in plots.gallery(rows, diverging=("scores",)).axes)
    assert (grey.get_array() == 1).all() and (scores.get_array() == -7).all()
    assert colour.get_array()[0, 0].tolist() == [0, 0, 1]
    assert opacity.get_array()[:, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 0]]
    for shape in ((1, 2, 4, 4), (1, 5, 4, 4), (4, 4), (0, 3, 4, 4)):
        with pytest.raises(ValueError, match=r"rows\['x'\] must be images \(n, C, H, W\) with 1, 3 or 4 channels"):
            plots.gallery({"x": torch.zeros(shape)})


def test_a_missing_number_of_a_table_is_a_dash():
    shown = plots.table(pd.DataFrame({"r": [0.5, float("nan")]}), "Correlation").to_html()
    assert "0.5" in shown and "–" in shown and "nan" not in shown
