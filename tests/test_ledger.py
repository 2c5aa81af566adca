"""Records, verdicts and the table of claims."""

import json

import pandas as pd
import pytest

from lfx_utils.chapters import ledger, start
from lfx_utils.chapters.ledger import verdict


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("LFX_OUT", str(tmp_path))
    return start("01_completeness", "smoke")


class Data:
    def __init__(self, name):
        self.name, self.provenance = name, "made for a test"


@pytest.mark.parametrize(
    ("kind", "expected", "spread", "value", "interval", "real", "full", "answer"),
    [
        ("value", "0.39", "0.01", 0.40, (0.38, 0.42), True, False, "reproduced"),
        ("value", "0.39", "0.01", 0.60, (0.58, 0.62), True, True, "reproduced in kind"),
        ("value", "0.39", "0.01", 0.90, (0.88, 0.92), True, True, "contradicted"),
        ("value", "0.39", "0.01", 0.90, (0.88, 0.92), True, False, "not settled at this size"),
        ("value", "0.39", "", -0.39, (-0.4, -0.38), True, True, "contradicted"),
        ("value", "0.39", "", 0.95, (-9.0, 9.0), True, False, "not settled at this size"),
        ("value", "0.09", "", 0.02, (-0.05, 0.1), True, True, "not settled at this size"),
        ("value", "4", "", 4, None, True, False, "reproduced"),
        ("value", "0.39", "0.01", 0.40, (0.38, 0.42), False, False, "reproduced in kind"),
        ("order", "", "", 0.2, (0.1, 0.3), True, False, "reproduced"),
        ("order", "", "", 0.2, (0.1, 0.3), False, False, "reproduced in kind"),
        ("order", "", "", 0.2, (-0.1, 0.5), True, True, "not settled at this size"),
        ("order", "", "", -0.2, (-0.3, -0.1), True, True, "contradicted"),
        ("order", "", "", -0.2, (-0.3, -0.1), False, True, "not settled at this size"),
        ("sign", "-", "", -0.2, (-0.3, -0.1), True, True, "reproduced"),
        ("sign", "-", "", 0.2, (0.1, 0.3), True, True, "contradicted"),
        ("sign", "+", "", 0.2, (0.1, 0.3), True, True, "reproduced"),
        ("proof", "0", "1e-5", 1e-7, None, True, False, "reproduced"),
        ("proof", "0", "1e-5", 1e-3, None, True, False, "contradicted"),
        ("proof", "0", "1e-2", 0.02, (-0.02, 0.06), True, False, "reproduced"),
        ("proof", "0", "1e-2", 0.02, (-0.2, 0.24), True, False, "not settled at this size"),
        ("proof", "0", "1e-2", 0.02, (0.01, 0.03), True, True, "contradicted"),
        ("figure", "", "", None, None, True, False, "drawn"),
        ("uncomputable", "1", "", None, None, True, True, "not computable"),
        ("order", "", "", float("nan"), None, True, True, "not computable"),
    ],
)
def test_verdicts_follow_the_rule(kind, expected, spread, value, interval, real, full, answer):
    assert verdict(kind, expected, spread, value, interval, real=real, full=full) == answer
    assert answer in ledger.VERDICTS


def test_a_record_says_what_how_and_where(session):
    assert (
        ledger.record(session, "LF.P2.3.saliency-fails", (0.5, 0.4, 0.6), dataset=Data("mnist"), note="n")
        == "reproduced"
    )
    (row,) = json.loads((session.out / "01_completeness.json").read_text(encoding="utf-8"))
    assert (row["value"], row["low"], row["high"], row["dataset"], row["seed"], row["profile"]) == (
        0.5,
        0.4,
        0.6,
        "mnist",
        0,
        "smoke",
    )
    assert row["versions"]["torch"] and row["provenance"] == "made for a test" and row["recorded"]


@pytest.mark.parametrize("name", ["digits", "heartbeats", "photographs", "sprites"])
def test_stand_in_data_never_reproduces_an_order(session, name):
    claim, estimate = "LF.P2.3.saliency-fails", (0.5, 0.4, 0.6)
    assert ledger.record(session, claim, estimate, dataset=Data(name)) == "reproduced in kind"


def test_a_later_record_replaces_the_earlier(session):
    ledger.record(session, "LF.PA.3.mirror", 1.0)
    ledger.record(session, "LF.PA.3.rotation", 1e-9)
    assert ledger.record(session, "LF.PA.3.mirror", 1e-9) == "reproduced"
    table = ledger.summary(session)
    assert table.claim.tolist() == ["LF.PA.3.mirror", "LF.PA.3.rotation"] and table.ours.tolist() == ["1e-09", "1e-09"]
    assert isinstance(table, pd.DataFrame) and table.published.tolist() == ["zero, to within 1e-5"] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("LF.nothing", 1.0), KeyError, "Unknown claim id 'LF.nothing'"),
        (("LF.PA.3.mirror", (1.0, 2, 1)), ValueError, "estimate must be"),
        (("LF.PA.3.mirror", None), ValueError, "say why in note"),
    ],
)
def test_bad_records_leave_the_file_as_it_was(session, arguments, error, message):
    ledger.record(session, "LF.PA.3.rotation", 1e-9)
    before = (session.out / "01_completeness.json").read_text(encoding="utf-8")
    with pytest.raises(error, match=message):
        ledger.record(session, *arguments)
    assert (session.out / "01_completeness.json").read_text(encoding="utf-8") == before


def test_a_number_that_is_none_is_stored_as_missing(session):
    assert ledger.record(session, "LF.F2a.ig-highest", float("nan"), note="diverged") == "not computable"
    text = (session.out / f"{session.chapter}.json").read_text(encoding="utf-8")
    assert "NaN" not in text and json.loads(text)[0]["value"] is None


def test_an_empty_session_has_no_summary(session):
    with pytest.raises(FileNotFoundError, match="recorded no claim yet"):
        ledger.summary(session)
