"""The scorecard gathers what chapters recorded, counts it, and shows it where no kernel runs."""

import json
from html.parser import HTMLParser

import pandas as pd
import pytest

from lfx_utils.chapters import ledger, scorecard
from lfx_utils.chapters.session import start


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run in which two chapters recorded a proof, a figure and a gap."""
    monkeypatch.setenv("LFX_OUT", str(tmp_path))
    first, second = start("01_completeness", "smoke", 3), start("06_relax", "smoke", 3)
    claims = ledger.published()
    proof, figure, gap = (claims.index[claims.kind == kind][0] for kind in ("proof", "figure", "uncomputable"))
    ledger.record(first, proof, 1e-12)
    ledger.record(second, figure, None)
    ledger.record(second, gap, None, note="a <study> with people")
    return first.out, proof, figure, gap


def test_every_claim_has_one_row_and_keeps_its_record(folder):
    out, proof, figure, gap = folder
    frame = scorecard.collect(out)
    assert list(frame.index) == list(ledger.published().index)
    assert list(frame.loc[[proof, figure, gap], "verdict"]) == ["reproduced", "drawn", "not computable"]
    assert (frame["verdict"] == scorecard.MISSING).sum() == len(frame) - 3
    assert frame.loc[proof, "value"] == 1e-12 and frame.loc[proof, "seed"] == 3


def test_counts_add_up_to_the_claims(folder):
    frame = scorecard.collect(folder[0])
    for by in ("paper", "page"):
        counts = scorecard.counts(frame, by)
        assert counts.sum(axis=1).to_dict() == frame.groupby(by).size().to_dict()
        assert counts["reproduced"].sum() == 1


class Table(HTMLParser):
    """Collect a page's rows, links and whether its tags nest."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.rows, self.links, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("input", "br"):
            self.open.append(tag)
        if tag == "tr" and attributes:
            self.rows.append(dict(attributes))
        if tag == "a":
            self.links.append(dict(attributes)["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_html_with_a_row_and_a_link_a_claim(folder):
    out, proof, _, gap = folder
    records = json.loads((out / "01_completeness.json").read_text(encoding="utf-8"))
    (out / "01_completeness.json").write_text(json.dumps([row | {"cell": 7} for row in records]), encoding="utf-8")
    frame = scorecard.collect(out)
    table = Table(scorecard.page(frame))
    assert table.open == [] and len(table.rows) == len(frame) == len(table.links)
    assert table.links[list(frame.index).index(proof)] == "01_completeness.html#cell-7"
    assert "a <study> with people" in table.text  # a note's markup is shown, not obeyed
    shown = pd.Series([row["data-verdict"] for row in table.rows]).value_counts()
    assert shown.to_dict() == frame["verdict"].value_counts().to_dict()


def test_the_files_for_machines_hold_the_same_rows(folder):
    frame = scorecard.collect(folder[0])
    table, records = scorecard.save(frame, folder[0] / "scorecard")
    assert list(pd.read_csv(table, index_col="id").index) == list(frame.index)
    rows = json.loads(records.read_text(encoding="utf-8"))
    assert [row["id"] for row in rows] == list(frame.index)
    assert {row["verdict"] for row in rows} == set(frame["verdict"])
    assert scorecard.collect(folder[0])["verdict"].tolist() == frame["verdict"].tolist()  # they are no records


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of records at .*nowhere"):
        scorecard.collect(tmp_path / "nowhere")
