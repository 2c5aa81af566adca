"""A long run's records and encoders are kept whole, and the encoders of chapter 4 that are shipped can tell digits."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from lfx_utils import encoders
from lfx_utils.datasets import load
from lfx_utils.encoders import shipped
from lfx_utils.examples import dknn
from lfx_utils.measures.intervals import crossed_interval
from lfx_utils.models import autoencoders, capsules
from lfx_utils.training import fit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))
import from_cells  # noqa: E402
import keep  # noqa: E402

PRETEXT = shipped.CHECKPOINTS / "pretext"
RUNS = [
    (path.stem, run)
    for path in sorted(PRETEXT.glob("*.json"))
    for run in json.loads(path.read_text(encoding="utf-8"))["runs"]
]


def build(task: str) -> torch.nn.Module:
    model = capsules.StackedCapsules(**capsules.SMALL).encoder if task == "caps" else autoencoders.image_encoder(4)
    return model.eval()


def test_the_best_weights_are_kept(tmp_path, monkeypatch):
    torch.manual_seed(0)
    images, model = torch.rand(12, 1, 28, 28), autoencoders.mnist_autoencoder()
    checkpoint = tmp_path / "04_pretext_tasks-rec-0-1.pt"
    options = {"epochs": 2, "batch_size": 4, "validation": (images,), "checkpoint": checkpoint}
    history = fit(model, lambda model, x: (model(x) - x).square().mean(), (images,), **options)
    state = torch.load(checkpoint, weights_only=True)
    state["model"] = {name: torch.zeros_like(each) for name, each in state["model"].items()}  # the last is not the best
    torch.save(state, checkpoint)
    keep.encoders([checkpoint], "04_pretext_tasks", tmp_path / "pretext", {"command": "the command"})
    monkeypatch.setattr(shipped, "CHECKPOINTS", tmp_path)
    found = encoders.weights("rec", "0-1")
    assert found.keys() == model.encoder.state_dict().keys()
    assert all(torch.equal(found[name], each) for name, each in model.encoder.state_dict().items())
    card = json.loads((tmp_path / "pretext" / "rec.json").read_text(encoding="utf-8"))
    about = card["runs"]["0-1"]
    assert (about["epochs"], about["best_epoch"]) == (2, history.best_epoch + 1) and card["command"] == "the command"
    assert about["test_loss"] == pytest.approx(min(history.validation), abs=1e-6)


def test_models_are_kept_with_their_snapshots(tmp_path, monkeypatch):
    torch.manual_seed(0)
    images, model = torch.rand(12, 1, 28, 28), autoencoders.mnist_autoencoder()
    checkpoint = tmp_path / "03_consistency_examples-digits-1.pt"
    options = {"epochs": 12, "batch_size": 4, "validation": (images,), "checkpoint": checkpoint, "snapshot_every": 1}
    history = fit(model, lambda model, x: (model(x) - x).square().mean(), (images,), **options)
    keep.encoders([checkpoint], "03_consistency_examples", tmp_path / "snapshots", {"command": "x"}, snapshots=True)
    monkeypatch.setattr(shipped, "CHECKPOINTS", tmp_path)
    states = [*history.snapshots, model.state_dict()]  # twelve and one, so that their order is not the alphabet's
    found = encoders.snapshots("1")
    assert len(found) == len(states) == 13
    for theirs, ours in zip(found, states, strict=True):
        assert theirs.keys() == ours.keys()
        for name, each in ours.items():
            assert theirs[name].dtype == each.dtype, name
            torch.testing.assert_close(theirs[name], each, rtol=1e-3, atol=1e-6)


def test_three_trainings_ship_with_their_snapshots():
    images = load("digits", train=1, test=100).test
    runs = encoders.card("digits", "snapshots")["runs"]
    assert set(runs) == {"0", "1", "2"}
    for run, about in runs.items():
        torch.manual_seed(0)
        model, errors = autoencoders.mnist_autoencoder().eval(), []
        for state in (model.state_dict(), *encoders.snapshots(run)):
            model.load_state_dict(state)
            with torch.no_grad():
                errors.append((model(images) - images).square().mean().item())
        assert len(errors) == 1 + about["epochs"] // 10 + 1
        assert max(errors[1:]) < 0.75 * errors[0]  # they have seen MNIST, these digits are of another hand
    with pytest.raises(ValueError, match="run must be one of 0, 1, 2; got '7'"):
        encoders.snapshots("7")


def test_newer_records_replace_older_ones(tmp_path):
    old, new = [{"id": "a", "value": 1}, {"id": "b", "value": 2, "cell": 4}], [{"id": "b", "value": 3, "cell": 5}]
    (tmp_path / "run.json").write_text(json.dumps(new), encoding="utf-8")
    (tmp_path / "kept.json").write_text(json.dumps(old), encoding="utf-8")
    assert keep.records(tmp_path / "run.json", tmp_path / "kept.json", "papermill x y") == 2
    kept = json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))
    assert kept == [{"id": "a", "value": 1}, {"id": "b", "value": 3, "command": "papermill x y"}]
    assert keep.records(tmp_path / "run.json", tmp_path / "chosen.json", "papermill x y", claims="^a$") == 0
    (tmp_path / "run.json").write_text(json.dumps([{"id": "a", "value": None}]), encoding="utf-8")
    assert keep.records(tmp_path / "run.json", tmp_path / "kept.json", "papermill x y") == 2
    assert json.loads((tmp_path / "kept.json").read_text(encoding="utf-8")) == kept  # no number replaces none


def test_kept_records_say_where_they_come_from():
    for path in sorted((ROOT / "data" / "results").glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            assert {"stand_in", "dataset", "profile", "seed", "device", "versions"} <= row.keys(), (path, row["id"])
            assert "verdict" not in row, row["id"]  # it follows from the rule of the day
            if row["id"] != "ERR.13.runs-today":  # of a program, and not of a chapter
                assert path.stem in row["command"] and f"-p profile {row['profile']}" in row["command"], row["id"]


@pytest.mark.parametrize(
    "cell, data, method",
    [
        ("dknn", "digits, shipped encoders", "DKNN"), ("simplex", "digits, shipped encoders", "SimplEx"),
        ("tracin", "digits", "TracIn"), ("influence", "digits", "influence"),
    ],
)  # fmt: skip
def test_kept_values_give_the_kept_intervals(cell, data, method):
    results = ROOT / "data" / "results"
    rows = json.loads((results / "03_consistency_examples.json").read_text(encoding="utf-8"))
    (row,) = (row for row in rows if row["id"] == f"LF.F3a.{cell}-most-above-least")
    values = pd.read_csv(results / "values" / "03_consistency_examples-gaps.csv")
    values = values[(values["data"] == data) & (values["method"] == method)]
    table = values.pivot(index="training", columns="example", values="most less least")
    assert crossed_interval(table) == pytest.approx([row[end] for end in ("value", "low", "high")], abs=1e-6)


def test_five_runs_of_each_task_are_shipped():
    assert {task for task, _ in RUNS} == {"rec", "den", "inp", "cls", "caps"}
    assert {run for _, run in RUNS} == {f"0-{run}" for run in range(5)} and len(RUNS) == 25


@pytest.mark.parametrize("task, run", RUNS)
def test_shipped_encoders_tell_digits_apart(task, run):
    data, hits = load("digits", train=300, test=100), {}
    torch.manual_seed(0)
    for name in ("untrained", "trained"):
        encoder = build(task)
        if name == "trained":
            encoder.load_state_dict(encoders.weights(task, run))
        with torch.no_grad():
            nearest = dknn(encoder(data.test), encoder(data.train)).argmax(1)
        hits[name] = (data.train_labels[nearest] == data.test_labels).float().mean().item()
    # They have seen MNIST, these digits are of another hand.
    assert hits["trained"] > hits["untrained"] + 0.1


def test_what_is_not_shipped(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="task must be one of caps, cls, den, inp, rec; got 'rot'"):
        encoders.weights("rot", "0-0")
    with pytest.raises(ValueError, match="run must be one of 0-0, .*; got '7-0'"):
        encoders.weights("rec", "7-0")
    shutil.copytree(PRETEXT, tmp_path / "pretext")
    path = tmp_path / "pretext" / "rec.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(shipped, "CHECKPOINTS", tmp_path)
    with pytest.raises(ValueError, match="is not the file that its card describes"):
        encoders.weights("rec", "0-0")


def test_a_lead_is_over_the_others_in_their_place_and_turns_with_the_sign():
    cells = {
        f"T-{method}-e-voc": {"value": value} for method, value in {"a": 3.0, "b": 5.0, "c": 1.0, "d": 2.0}.items()
    }
    lead = [from_cells.lead(cells, "T", "a", tuple("abcd"), "e-voc", place=place) for place in (1, 2, 3)]
    assert lead == [-2.0, 1.0, 2.0]
    assert from_cells.lead(cells, "T", "a", tuple("abcd"), "e-voc", sign=-1) == -2.0


def test_the_orders_of_the_kept_run_are_those_of_its_cells():
    path = ROOT / "data" / "results" / "07_nem_u.json"
    cells = {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    for claim, (numbers, void) in from_cells.nem_u(cells).items():
        assert cells[claim]["value"] == pytest.approx(sum(numbers) / len(numbers)), claim
        assert cells[claim]["command"].endswith(from_cells.COMMAND) and cells[claim]["void"] == void
