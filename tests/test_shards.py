"""The best of many batches and shards against all scores at once, and a killed shard that goes on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lfx_utils.examples import merge, near, represent, scored, shard, top, tracin
from lfx_utils.models.autoencoders import Autoencoder

ROOT = Path(__file__).resolve().parents[1]


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Stream(IterableDataset):
    def __init__(self, train):
        self.train = train

    def __iter__(self):
        return iter(self.train.split(70))


def kinds(train):
    labels = torch.zeros(len(train))
    return {
        "tensor": train,
        "data set": TensorDataset(train, labels),
        "loader": DataLoader(TensorDataset(train, labels), batch_size=64),
        "stream": Stream(train),
        "generator": (batch for batch in train.split(90)),
    }


@pytest.mark.parametrize("kind", kinds(points(1, 1)))
def test_near_against_scikit_learn(kind):
    train, test = points(500, 20), points(30, 20, seed=1)
    found = shard(near(test), kinds(train)[kind], 7, batch_size=110)
    distance, index = NearestNeighbors(n_neighbors=7).fit(train).kneighbors(test)
    assert (found.indices.numpy() == index).all()
    torch.testing.assert_close(-found.values, torch.tensor(distance).float())


def test_shards_in_any_order_equal_one_search():
    train, test = points(500, 20).round(), points(30, 20, seed=1).round()  # Rounded, so that distances tie.
    whole = shard(near(test), train, 9, batch_size=10_000)
    parts = [
        shard(near(test), train[start : start + 125], 9, start=start, batch_size=40) for start in (250, 0, 375, 125)
    ]
    for found in (merge(parts), merge([merge(parts[:2]), merge(parts[2:])]), merge(parts, k=9)):
        assert torch.equal(found.indices, whole.indices) and torch.equal(found.values, whole.values)
    assert torch.equal(merge(parts, k=3).indices, whole.indices[:, :3])


def test_tracin_by_batches_equals_all_scores_at_once():
    torch.manual_seed(0)
    model = Autoencoder(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), nn.Linear(3, 6)).eval()
    test, train = points(4, 6), points(60, 6, seed=1)
    given = model, lambda model, x: (model(x) - x).square().mean(), [(model.state_dict(), 0.1)], test
    proponents, opponents = top(tracin(*given, train), 5)
    for sign, expected in ((1, proponents), (-1, opponents)):
        parts = [
            shard(
                scored(lambda batch, sign=sign: sign * tracin(*given, batch)),
                train[rows],
                5,
                start=rows.start,
                batch_size=13,
            )
            for rows in (slice(0, 30), slice(30, 60))
        ]
        assert torch.equal(merge(parts).indices, expected)


def test_an_encoder_and_fewer_examples_than_k():
    encoder, train, test = nn.Linear(6, 20).eval(), points(5, 6), points(3, 6, seed=1)
    h_test = represent(encoder, test)
    found = shard(near(h_test, lambda batch: represent(encoder, batch)), train, 9, batch_size=2)
    assert found.indices.sort(1).values.tolist() == [[0, 1, 2, 3, 4]] * 3
    expected = torch.cdist(h_test, represent(encoder, train)).sort(1).values
    torch.testing.assert_close(-found.values, expected)


SLOW = """
import sys, time, torch
from lfx_utils.examples import near, shard

train = torch.randn(40, 50, 20, generator=torch.Generator().manual_seed(0))
test = torch.randn(10, 20, generator=torch.Generator().manual_seed(1))
search = near(test)

def slowly(batch, k, least):
    with open(sys.argv[2], "a", encoding="utf-8") as file:
        file.write("x")
    time.sleep(0.2)
    return search(batch, k, least)

found = shard(slowly, iter(train), 6, checkpoint=sys.argv[1])
torch.save(tuple(found), sys.argv[1] + ".result")
"""


def test_a_killed_shard_goes_on(tmp_path):
    state, noted = tmp_path / "shard.pt", tmp_path / "searched"
    command = [sys.executable, "-c", SLOW, str(state), str(noted)]
    process = subprocess.Popen(command, cwd=ROOT)
    while not (state.exists() and len(noted.read_text(encoding="utf-8")) > 8):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    searched = len(noted.read_text(encoding="utf-8"))
    assert searched < 40
    noted.write_text("", encoding="utf-8")
    subprocess.run(command, cwd=ROOT, check=True)
    assert (
        len(noted.read_text(encoding="utf-8")) <= 40 - searched + 1 + 6
    )  # the first batch, and what a second's writing had left
    values, indices = torch.load(f"{state}.result")
    train, test = points(40, 50, 20).flatten(0, 1), points(10, 20, seed=1)
    distance, index = NearestNeighbors(n_neighbors=6).fit(train).kneighbors(test)
    assert (indices.numpy() == index).all()
    torch.testing.assert_close(-values, torch.tensor(distance).float())


def test_another_runs_file_is_refused(tmp_path):
    train, test, state = points(300, 20), points(10, 20, seed=1), tmp_path / "shard.pt"
    found = shard(near(test), train, 4, batch_size=50, checkpoint=state)
    again = shard(near(test), train, 4, batch_size=50, checkpoint=state)
    assert torch.equal(found.indices, again.indices)
    changed = train.clone()
    changed[120, 3] += 1e-3
    for words, search, batches, k, start in (
        ("search", near(test + 0.01), train, 4, 0),
        ("k ", near(test), train, 5, 0),
        ("start", near(test), train, 4, 300),
        ("first batch", near(test), train + 0.1, 4, 0),
        ("batch 2 is not", near(test), changed, 4, 0),
        ("seen 6 batches", near(test), train[:200], 4, 0),
    ):
        with pytest.raises(ValueError, match=words):
            shard(search, batches, k, start=start, batch_size=50, checkpoint=state)


def test_bad_input():
    train, test = points(30, 20), points(4, 20, seed=1)
    found = shard(near(test), train, 3)
    for words, call in (
        ("shuffles", lambda: shard(near(test), DataLoader(TensorDataset(train), batch_size=5, shuffle=True), 3)),
        ("batches is empty", lambda: shard(near(test), [], 3)),
        ("NaN", lambda: shard(near(test), [train * torch.nan], 3)),
        ("k must be", lambda: shard(near(test), train, 0)),
        ("a column for each example", lambda: shard(scored(lambda batch: batch), train, 3)),
        ("finite values", lambda: shard(scored(lambda batch: torch.full((4, len(batch)), torch.inf)), train, 3)),
        ("latent size", lambda: shard(near(test), train[:, :7], 3)),
        ("in common", lambda: merge([found, found])),
        ("same test examples", lambda: merge([found, shard(near(test[:2]), train, 3, start=30)])),
        ("got none", lambda: merge([])),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_the_workflow_puts_shards_together(tmp_path):
    train, test = points(500, 20), points(30, 20, seed=1)
    np.save(tmp_path / "train.npy", train.numpy())
    np.save(tmp_path / "test.npy", test.numpy())
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Shards"), "--cores", "1"]
    settings = [f"train={tmp_path}/train.npy", f"test={tmp_path}/test.npy", f"out={tmp_path}/out", "shards=2", "keep=7"]
    subprocess.run([*command, "--config", *settings], cwd=tmp_path, check=True, capture_output=True)
    best = np.load(tmp_path / "out" / "best.npz")
    distance, index = NearestNeighbors(n_neighbors=7).fit(train).kneighbors(test)
    assert (best["indices"] == index).all()
    np.testing.assert_allclose(-best["values"], distance, rtol=1e-5)
