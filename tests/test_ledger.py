"""Records, what stands in for the paper's in them, and the verdicts that follow when they are read."""

import json

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from torch import nn

from lfx_utils.chapters import judgement, ledger, start
from lfx_utils.chapters.claims import published, settings, stands_in
from lfx_utils.models import autoencoders, capsules, sequences, simclr, vae

ORDER, VALUE, TEST, FIGURE = (
    "LF.F2a.ig-highest",
    "LF.T1.reconstruction-denoising",
    "NU.ARCH.mask-range",
    "LF.F9.saliency-maps",
)


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("LFX_OUT", str(tmp_path))
    return start("01_completeness", "smoke")


class Data:
    def __init__(self, name):
        self.name, self.provenance = name, "made for a test"


def record(claim, value=0.5, low=None, high=None, **more):
    """A record as a chapter writes it, on MNIST at the published size unless it says otherwise."""
    row = {"id": claim, "value": value, "low": low, "high": high, "profile": "paper", "dataset": "mnist"}
    return row | {"stand_in": "", "note": "", "runs": 5, "void": ""} | more


def said(*rows):
    return judgement.judge({row["id"]: row for row in rows})


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (record(ORDER, 0.2, 0.1, 0.3), "holds"),
        (record(ORDER, 0.2, -0.1, 0.5), "open"),
        (record(ORDER, -0.2, -0.3, -0.1), "fails"),
        (record(ORDER, 0.2, 0.1, 0.3, profile="quick"), "holds"),
        (record(ORDER, 0.2, 0.1, 0.3, dataset="digits"), "holds on our encoders"),
        (record(ORDER, -0.2, -0.3, -0.1, stand_in="a smaller network"), "fails on our encoders"),
        (record(ORDER, 0.2, -0.1, 0.5, stand_in="a smaller network"), "open"),
        (record(ORDER, 0.2, 0.1, 0.3, void="a constant does as well"), "void"),
        (record(ORDER, None, note="no data"), "not computable"),
        (record("LF.PA.3.mirror", 1e-9), "holds"),
        (record("LF.PA.3.mirror", 1e-3), "fails"),
        (record("RX.FD3.importance-difference-falls", -0.5, -0.6, -0.4, dataset="voc2007"), "holds on our encoders"),
        (record(VALUE, 0.39, 0.38, 0.40), "compatible"),
        (record(VALUE, 0.90, 0.89, 0.91), "differs"),
        (record(VALUE, 0.90, 0.89, 0.91, profile="quick"), "side by side"),
        (record(VALUE, 0.90, 0.89, 0.91, dataset="digits"), "side by side"),
        (record(VALUE, 0.90, 0.89, 0.91, stand_in="a smaller network"), "side by side"),
        (record(VALUE, 0.90, 0.89, 0.91, runs=0), "side by side"),
        (record(VALUE, 0.90), "side by side"),
        (record("SV.T1.mnist-semivae-alpha1-accuracy", 20.0, 10.0, 30.0), "void"),
        (record("SV.T1.mnist-semivae-alpha1-accuracy", 97.0, 96.0, 98.0), "side by side"),
        (record(TEST, 0.0), "passed"),
        (record(TEST, 0.1), "not passed"),
        (record("LF.P2.3.saliency-fails", 0.5, 0.4, 0.6), "passed"),
        (record("LF.T5.latent-size", 4), "passed"),
        (record("LF.T5.latent-size", 5), "not passed"),
        (record(FIGURE, None), "drawn"),
        (record("RX.T3.relax", None, note="people"), "not computable"),
    ],
)
def test_a_record_gets_the_verdict_of_its_kind(row, verdict):
    assert said(row)[row["id"]].verdict == verdict


def test_a_table_is_judged_by_its_cells_and_a_void_stratum_is_left_out():
    cells = published()[published().table == "SV.T1.accuracy-ranking"]
    near = {claim: float(cells.published[claim]) - 1 for claim in cells.index}
    rows = [record(claim, value, value - 0.5, value + 0.5) for claim, value in near.items()]
    assert said(*rows)["SV.T1.accuracy-ranking"][:2] == ("agrees on our encoders", "ρ = 1.00, p = 0.0014, 18 cells")
    chance = [row | {"low": 5.0} if "cifar10" in row["id"] else row for row in rows]
    assert said(*chance)["SV.T1.accuracy-ranking"].basis.endswith("12 cells")
    turned = [row | dict.fromkeys(("value", "low", "high"), 100 - row["value"] / 2) for row in rows]
    assert said(*turned)["SV.T1.accuracy-ranking"].verdict == "reversed on our encoders"
    assert said(*(row | {"low": 5.0} for row in rows))["SV.T1.accuracy-ranking"].verdict == "void"


def test_numbers_of_a_table_share_its_false_discoveries():
    cells = published()[published().table == "LF.T1.ranking"]
    rows = [
        record(i, float(cells.published[i]), float(cells.published[i]) - 0.01, float(cells.published[i]) + 0.01)
        for i in cells.index
    ]
    off = rows[0] | {"value": 0.41, "low": 0.395, "high": 0.425}
    p = {count: float(said(off, *rows[1:count])[off["id"]].basis.removeprefix("p = ")) for count in (1, 6)}
    assert p[6] == pytest.approx(min(1, 6 * p[1]), rel=0.05)


def test_every_comparable_claim_says_once_what_the_paper_had():
    for claim, row in published().iterrows():
        if row.kind in judgement.CLAIMS and row.kind != "uncomputable":
            assert settings()[claim], claim


def test_a_forgotten_stand_in_is_named_all_the_same():
    for claim, setting in settings().items():
        if setting.get("ours"):
            assert stands_in(record(claim, dataset=(setting["data"] or "any").split()[0])) == setting["ours"], claim
        if setting.get("data"):
            assert "unnamed data for" in stands_in(record(claim, dataset="")), claim
    assert stands_in(record("LF.F2c.ig-highest", dataset="cifar10")) == ""
    assert stands_in(record(ORDER)) == ""


def test_what_an_encoder_says_of_itself_decides_whether_it_stands_in(session):
    resnet, small = simclr.cifar_resnet18(), simclr.small_encoder()
    for encoders, expected in (
        (resnet, ""),
        ([resnet, resnet], ""),
        (small, "a network of four convolutions for the ResNet-18 of LF Table 7"),
        ([resnet, small], "a network of four convolutions for the ResNet-18 of LF Table 7"),
        (nn.Linear(1, 1), "an encoder without a name for the ResNet-18 of LF Table 7"),
    ):
        ledger.record(session, "LF.F2c.ig-highest", 0.5, dataset=Data("cifar10"), encoder=encoders)
        (row,) = json.loads((session.out / "01_completeness.json").read_text(encoding="utf-8"))
        assert stands_in(row) == expected


def test_our_models_are_the_papers_only_at_the_printed_size():
    built = {
        "LF.F2a.ig-highest": autoencoders.mnist_autoencoder,
        "LF.F2b.ig-highest": lambda **size: sequences.ecg_autoencoder(**(size or {"latent": 64})),
        "LF.F3b.dknn-most-above-least": lambda **size: sequences.ecg_autoencoder(**(size or {"latent": 32})),
    }
    for claim, build in built.items():
        assert build().encoder.origin == settings()[claim]["encoder"]
        assert build(latent=9).encoder.origin != settings()[claim]["encoder"]
    sizes = {"LF.F6.spearman-mnist": (32, 3), "LF.F6.spearman-dsprites": (64, 6)}
    for claim, (side, latent) in sizes.items():
        theirs = settings()[claim]["encoder"]
        assert vae.mean_encoder(vae.VAE(side, latent)).origin == theirs
        assert theirs not in (vae.VAE(side, latent, width=16).origin, vae.VAE(2 * side, latent).origin)
    parts = [capsules.StackedCapsules(**sizes).encoder.origin for sizes in ({}, capsules.SMALL)]
    theirs = settings()["RE.T1.gradient-shap-reconstruction-scae"]["encoder"].split("; ")
    assert [part in theirs for part in parts] == [True, False]


def test_a_number_about_an_architecture_names_its_encoder(session):
    with pytest.raises(ValueError, match="pass the encoder that it was computed on"):
        ledger.record(session, ORDER, 0.5, dataset=Data("mnist"))


def test_a_record_says_what_how_and_where(session):
    about = {"dataset": Data("mnist"), "encoder": autoencoders.image_encoder()}
    ledger.record(session, ORDER, (0.5, 0.4, 0.6), note="n", runs=3, **about)
    (row,) = json.loads((session.out / "01_completeness.json").read_text(encoding="utf-8"))
    expected = {"value": 0.5, "low": 0.4, "high": 0.6, "dataset": "mnist", "seed": 0, "profile": "smoke", "runs": 3}
    assert {name: row[name] for name in expected} == expected and "verdict" not in row
    assert row["versions"]["torch"] and row["provenance"] == "made for a test" and row["recorded"]


def test_a_later_record_replaces_the_earlier(session):
    ledger.record(session, "LF.PA.3.mirror", 1.0)
    ledger.record(session, "LF.PA.3.rotation", 1e-9)
    ledger.record(session, "LF.PA.3.mirror", 1e-9)
    table = ledger.summary(session)
    assert table.claim.tolist() == ["LF.PA.3.mirror", "LF.PA.3.rotation"] and table.ours.tolist() == ["1e-09", "1e-09"]
    assert isinstance(table, pd.DataFrame) and table.published.tolist() == ["zero, to within 1e-5"] * 2
    assert table.verdict.tolist() == ["holds", "holds"]


def test_a_summary_has_a_line_for_each_table(session):
    pairs = ["reconstruction-denoising", "reconstruction-inpainting", "denoising-inpainting"]
    for pair in (*pairs, "inpainting-classification"):  # four of the six: three are no more than half
        about = {"dataset": Data("mnist"), "encoder": autoencoders.image_encoder()}
        ledger.record(session, f"LF.T1.{pair}", 0.1 + len(pair), **about)
    last = ledger.summary(session).iloc[-1]
    assert (last.claim, last.verdict, last.published) == ("LF.T1.ranking", "no power", "the order of its rows")
    assert last.ours.startswith("ρ = ")


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
    about = {"note": "diverged", "encoder": autoencoders.image_encoder()}
    ledger.record(session, ORDER, float("nan"), **about)
    text = (session.out / f"{session.chapter}.json").read_text(encoding="utf-8")
    assert "NaN" not in text and json.loads(text)[0]["value"] is None
    assert ledger.summary(session).verdict.tolist() == ["not computable"]


def test_values_are_kept_for_others_to_recompute(session):
    table = pd.DataFrame({"training": [0, 1], "training's error": [0.125, 1 / 3]})
    path = ledger.keep(session, "errors", table)
    assert path == session.out / "values" / f"{session.chapter}-errors.csv"
    pd.testing.assert_frame_equal(pd.read_csv(path), table, rtol=1e-5)
    ledger.keep(session, "errors", table[:1])
    assert len(pd.read_csv(path)) == 1
    with pytest.raises(ValueError, match="no values to keep as 'errors'"):
        ledger.keep(session, "errors", table[:0])


def test_an_empty_session_has_no_summary(session):
    with pytest.raises(FileNotFoundError, match="recorded no claim yet"):
        ledger.summary(session)


def test_a_record_names_the_cell_that_the_page_will_show(tmp_path, monkeypatch):
    monkeypatch.setenv("LFX_OUT", str(tmp_path))
    setup = "from lfx_utils.chapters import ledger, start\nsession = start('01_completeness', 'smoke')"
    record = "ledger.record(session, 'LF.PA.3.mirror', 1e-9)"
    cells = [nbformat.v4.new_code_cell(source) for source in (setup, "1", record, "2")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    (row,) = json.loads((tmp_path / "smoke" / "01_completeness.json").read_text(encoding="utf-8"))
    assert row["cell"] == notebook.cells[2].execution_count == 3
