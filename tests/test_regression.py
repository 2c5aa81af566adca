"""Bands: wide enough for another machine, too narrow for another sign; and the last built book lies in them."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))
import regression  # noqa: E402


def records(values, **extra):
    return [
        {"profile": "quick", "dataset": "mnist", "id": "LF.F2a.ig-highest", "value": v, "low": v - 0.1, "high": v + 0.1}
        | extra
        for v in values
    ]


def test_a_settled_sign_stays_a_sign():
    low, high = regression.band(records([0.5, 0.9, 0.7]))
    assert low == 0 and 0.9 < high < 2
    low, high = regression.band(records([-0.5, -0.9]))
    assert high == 0 and -2 < low < -0.9


def test_an_unsettled_sign_may_change():
    low, high = regression.band(records([0.05, 0.02]))
    assert low < 0 < 0.05 < high


def test_bands_are_made_and_a_wrong_sign_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(regression, "BANDS", tmp_path / "bands.csv")
    for seed, row in enumerate(records([0.5, 0.7])):
        (tmp_path / str(seed)).mkdir()
        proof = {"id": "LF.PA.3.mirror", "value": 1e-9, "low": None, "high": None}
        timing = {"id": "ERR.16.ig-over-gradient-shap-cost"}
        at_times = {"id": "LF.F2b.ig-highest", "value": None if seed else 0.5}  # the other runs make its band
        rows = [row, row | proof, row | timing, row | at_times]
        (tmp_path / str(seed) / "x.json").write_text(json.dumps(rows), encoding="utf-8")
    regression.make([tmp_path / "0", tmp_path / "1"])
    assert {key[2] for key in regression.read()} == {"LF.F2a.ig-highest", "LF.F2b.ig-highest", "LF.PA.3.mirror"}
    assert regression.outside(records([0.6])) == []
    assert "LF.F2a.ig-highest on mnist: -0.6 is outside" in regression.outside(records([-0.6]))[0]
    assert regression.outside(records([1e-4], id="LF.PA.3.mirror")) != []
    assert regression.outside(records([-9.0], dataset="digits")) == []


def test_intervals_of_one_run_are_held_against_the_others():
    first, second, third = (records([value])[0] | {"chapter": "c"} for value in (0.5, 0.55, 0.8))
    bare = {"id": "LF.F2a.saliency-above-random", "low": None, "high": None, "chapter": "c"}
    runs = [[first, first | bare], [second, second | bare], [third]]
    assert regression.held(runs) == {"c": (1, 2)}
    assert regression.held(runs[:1]) == {}


def test_the_last_built_book_lies_in_its_bands():
    paths = sorted((ROOT / "_build" / "results" / "quick").glob("*.json"))
    if not paths:
        pytest.skip("no book was built here; make book does that")
    rows = [row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))]
    assert regression.outside(rows) == []
