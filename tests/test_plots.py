"""Figures are looked at by people; what they say in words is tested."""

import pandas as pd
import pytest

from lfx_utils.chapters import plots


@pytest.mark.parametrize(("count", "folded"), [(50, False), (51, True)])
def test_many_claims_are_folded_under_their_count(count, folded):
    row = {"claim": "LF.X", "statement": "a < b", "published": "1", "ours": "1", "data": "", "verdict": "reproduced"}
    text = plots.claims(pd.DataFrame([row] * count)).data
    assert text.count("lfx-claim") == count and "a &lt; b" in text
    assert ("<details><summary>51 claims: 51 reproduced</summary>" in text) == folded
