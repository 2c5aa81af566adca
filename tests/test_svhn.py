"""SVHN: files in MATLAB's format are read as they were written, and missing or damaged ones are named."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import SVHN

from lfx_utils.datasets import svhn
from lfx_utils.datasets.cifar10 import blurred
from lfx_utils.datasets.files import Unavailable

COUNTS = {"train": 12, "test": 7}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Small files of the official form, their MD5 made known to torchvision in place of the official ones."""
    generator, truth, known = np.random.default_rng(0), {}, {}
    (tmp_path / "svhn").mkdir()
    for part, count in COUNTS.items():
        images = generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = generator.integers(1, 11, (count, 1), dtype=np.uint8)
        labels[0] = 10
        path = tmp_path / "svhn" / f"{part}_32x32.mat"
        savemat(path, {"X": images, "y": labels})
        truth[part] = images, labels
        known[part] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", known)
    return tmp_path, truth


def test_reads_what_was_written(written):
    root, truth = written
    data = svhn.load(root=root)
    for part, inputs, labels in (
        ("train", data.train, data.train_labels),
        ("test", data.test, data.test_labels),
    ):
        images, digits = truth[part]
        assert inputs.shape == (COUNTS[part], 3, 32, 32) and inputs.dtype == torch.float32 and inputs.is_contiguous()
        for row in range(COUNTS[part]):
            # MATLAB's files have the image as (row, column, channel, number) and the digit 0 as 10.
            expected = images[:, :, :, row].astype(np.float32).transpose(2, 0, 1) / 255
            assert np.allclose(inputs[row].numpy(), expected, atol=1e-7)
            assert labels[row] == digits[row, 0] % 10
    assert labels.dtype == torch.int64 and data.name == "svhn" and "MD5" in data.provenance
    assert torch.equal(data.baseline(data.test), blurred(data.test))


def test_draws_and_files_without_a_folder_of_their_own(written):
    root, _ = written
    whole, some = svhn.load(root=root), svhn.load(5, 3, seed=4, root=root / "svhn")
    assert len(some.train) == 5 and len(some.test) == 3
    assert all(any(torch.equal(image, other) for other in whole.train) for image in some.train)
    with pytest.raises(ValueError, match="train must be .* 1 to 12"):
        svhn.load(train=13, root=root)


def test_missing_files(tmp_path):
    with pytest.raises(Unavailable, match=rf"SVHN in {tmp_path / 'svhn'} is missing"):
        svhn.load(root=tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing is made in a root that may be read-only


def test_damaged_files(written):
    root, _ = written
    path = root / "svhn" / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Unavailable, match="SVHN in .* damaged"):
        svhn.load(root=root)


def test_failing_download(tmp_path, monkeypatch):
    closed = [f"http://127.0.0.1:9/{part}" for part in COUNTS]
    known = {part: [url, f"{part}_32x32.mat", "0" * 32] for part, url in zip(COUNTS, closed, strict=True)}
    monkeypatch.setattr(SVHN, "split_list", known)
    with pytest.raises(Unavailable, match="could not be downloaded"):
        svhn.load(root=tmp_path, download=True)
