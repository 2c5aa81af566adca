"""SVHN's cropped digits, from the two official files; torchvision knows where they are and what they must be."""

from pathlib import Path

import torch
import torchvision

from .base import FAULTS, Dataset, Unavailable, assemble, data_root
from .cifar10 import blurred

STAND_IN = "photographs"  # colour pictures of the same size


def load(train=None, test=None, seed=0, root=None, download=False) -> Dataset:
    """Load SVHN from `<root>/svhn` (or `<root>`); the baseline of an image is its Gaussian blur, as for CIFAR-10.

    The files are MATLAB's `train_32x32.mat` and `test_32x32.mat`; torchvision compares their MD5 and reads them. The
    531,131 further digits are not used.

    Args:
        train: how many of the 73,257 training examples, None for all.
        test: how many of the 26,032 test examples, None for all.
        seed: of the draw.
        root: the data root, see `data_root`.
        download: let torchvision fetch what is missing.

    Returns:
        images `(N, 3, 32, 32)`, labels 0–9, each the digit in the middle.

    Raises:
        Unavailable: a file is missing or not sound, or the download failed.

    Source: Netzer et al. (2011), Reading digits in natural images with unsupervised feature learning.
    """
    home = data_root(root)
    folder = next((path for path in (home / "svhn", home) if (path / "train_32x32.mat").is_file()), home / "svhn")
    try:
        parts = [_read(folder, part, download) for part in ("train", "test")]
    except FAULTS as error:
        raise Unavailable(f"SVHN in {folder} is missing, damaged or could not be downloaded ({error})") from error
    return assemble(
        "svhn",
        *parts,
        sizes=(train, test),
        seed=seed,
        convert=lambda images: torch.as_tensor(images).float().div_(255).contiguous(),
        class_names=tuple("0123456789"),
        baseline=blurred,
        provenance="SVHN, the two official files of cropped digits, MD5 checked.",
    )


def _read(folder: Path, part: str, download: bool):
    if download:
        folder.mkdir(parents=True, exist_ok=True)
    loaded = torchvision.datasets.SVHN(folder, part, download=download)
    return loaded.data, loaded.labels
