"""The scorecard gathers what chapters recorded, counts it, and shows it where no kernel runs."""

import json
from html.parser import HTMLParser

import pandas as pd
import pytest

from lfx_utils.chapters import judgement, ledger, scorecard
from lfx_utils.chapters.claims import DATA
from lfx_utils.chapters.session import start
from lfx_utils.chapters.verdicts import PENDING


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run in which two chapters recorded an identity, a figure and a gap."""
    monkeypatch.setenv("LFX_OUT", str(tmp_path))
    first, second = start("01_completeness", "smoke", 3), start("06_relax", "smoke", 3)
    claims = ledger.published()
    identity, figure, gap = (claims.index[claims.kind == kind][0] for kind in ("identity", "figure", "uncomputable"))
    ledger.record(first, identity, 1e-12)
    ledger.record(second, figure, None)
    ledger.record(second, gap, None, note="a <study> with people")
    return first.out, identity, figure, gap


def test_every_claim_has_one_row_and_keeps_its_record(folder):
    out, identity, figure, gap = folder
    frame = scorecard.collect(out)
    assert list(frame.index) == list(ledger.published().index)
    assert list(frame.loc[[identity, figure, gap], "verdict"]) == ["holds", "drawn", "not computable"]
    assert (frame["verdict"] == PENDING).sum() == len(frame) - 3
    assert frame.loc[identity, "value"] == 1e-12 and frame.loc[identity, "seed"] == 3
    assert frame.loc["NU.T7.robust", "basis"].startswith("An equivalence needs a margin")


def test_a_larger_run_gives_the_headline_and_stands_beside_the_pages_own(folder):
    frame = scorecard.collect(folder[0])
    assert frame.loc[folder[1], "headline"] == "holds" and not frame.loc[folder[1], "larger"]
    table = frame.loc["LF.T1.ranking"]
    assert (table["verdict"], table["headline"], table["larger"]) == ("not yet recorded", "agrees", True)
    assert table["larger_value"] == pytest.approx(0.986, abs=1e-3) and "p = 0.0028" in table["larger_basis"]


def test_the_kept_runs_meet_what_was_computed_independently():
    frame = scorecard.collect(DATA / "results")
    rho = {"RE.T1.gradient-shap": 0.80, "RE.T2": 0.63, "RE.T4.mnist": 0.83, "NU.T2.complexity": 0.81}
    rho |= {"NU.T2.relevance-mass": 0.70, "NU.T2.relevance-rank": 0.86}
    for name, expected in rho.items():
        name = f"{name}{'.' if name.count('.') == 1 else '-'}ranking"
        assert frame.loc[name, "value"] == pytest.approx(expected, abs=0.005), name


def test_the_headline_counts_claims_once_and_nothing_else(folder):
    frame = scorecard.collect(folder[0])
    total = scorecard.headline(frame)
    counted = frame[frame["counted"]]
    assert total.to_numpy().sum() == len(counted) and "drawn" not in total and "passed" not in total
    assert set(counted["kind"]) == {"table", "value", "order", "sign", "equivalence", "uncomputable"}
    assert (counted["same_as"] == "").all() and (counted["paper"] != "errata").all()


def test_a_card_says_what_fails_and_on_what(folder):
    frame = scorecard.collect(folder[0])
    wrong = scorecard.against(frame)
    assert {"NU.T4.nem-u-highest", "RX.TH1.three-thousand-suffice"} <= set(wrong.index)
    assert frame.loc["NU.T2.relax-highest-rank", "headline"] == "open"  # over encoders, and not over all their images
    text = Table(scorecard.cards(wrong.loc[["NU.T4.nem-u-highest"]])).text
    assert text.startswith("fails on our encoders: NEM-U has the highest monotonicity correlation.")
    assert "Finding NEM-U: positive" in text and "ours: -0.118" in text and "for those trained on ImageNet" in text


def test_a_stratum_with_a_cell_that_no_run_recorded_is_as_incomplete_as_one_without_a_number():
    rows = ledger.read(DATA / "results" / "07_nem_u.json")
    group = dict(judgement.tables(rows))["NU.T2.complexity-ranking"]
    silent = {claim: row for claim, row in rows.items() if not claim.endswith("nem-u-dino-voc")}
    empty = rows | {claim: row | {"value": None} for claim, row in rows.items() if claim not in silent}
    of_silent = dict(judgement.tables(silent))["NU.T2.complexity-ranking"]
    assert judgement.strata(of_silent, silent) == judgement.strata(group, empty)
    assert len(judgement.strata(group, rows)) == 4 and len(judgement.strata(group, empty)) == 3


def test_counts_add_up_to_the_claims(folder):
    frame = scorecard.collect(folder[0])
    for by in ("paper", "page"):
        counts = scorecard.counts(frame, by)
        assert counts.sum(axis=1).to_dict() == frame.groupby(by).size().to_dict()
        assert counts["drawn"].sum() == (frame["headline"] == "drawn").sum()


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
    out, identity, _, gap = folder
    records = json.loads((out / "01_completeness.json").read_text(encoding="utf-8"))
    (out / "01_completeness.json").write_text(json.dumps([row | {"cell": 7} for row in records]), encoding="utf-8")
    frame = scorecard.collect(out)
    table = Table(scorecard.page(frame))
    assert table.open == [] and len(table.rows) == len(frame) == len(table.links)
    assert table.links[list(frame.index).index(identity)] == "01_completeness.html#cell-7"
    assert "a <study> with people" in table.text  # a note's markup is shown, not obeyed
    shown = pd.Series([row["data-verdict"] for row in table.rows]).value_counts()
    assert shown.to_dict() == frame["headline"].value_counts().to_dict()


def test_the_files_for_machines_hold_the_same_rows(folder):
    frame = scorecard.collect(folder[0])
    table, records = scorecard.save(frame, folder[0] / "scorecard")
    assert list(pd.read_csv(table, index_col="id").index) == list(frame.index)
    rows = json.loads(records.read_text(encoding="utf-8"))
    assert [row["id"] for row in rows] == list(frame.index)
    assert {row["headline"] for row in rows} == set(frame["headline"])
    assert scorecard.collect(folder[0])["verdict"].tolist() == frame["verdict"].tolist()  # they are no records


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of records at .*nowhere"):
        scorecard.collect(tmp_path / "nowhere")


def test_the_values_that_chapters_kept_are_linked(tmp_path):
    assert scorecard.links(tmp_path) == ""
    for name in ("05-vaes.csv", "02-shifts.csv", "notes.txt"):
        (tmp_path / name).write_text("a\n1\n", encoding="utf-8")
    text = scorecard.links(tmp_path)
    assert text.index("02-shifts.csv") < text.index('href="../_static/values/05-vaes.csv"') and "notes" not in text
