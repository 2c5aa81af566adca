"""SVHN's cropped digits, from the two official files; torchvision knows where they are and what they must be."""

from pathlib import Path

import torch

from .base import Dataset, assemble
from .cifar10 import blurred
from .files import Unavailable, data_root, first_sound, sound

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
    places = [(folder / "train_32x32.mat", _read) for folder in (home / "svhn", home)]
    try:
        parts = first_sound(places, f"SVHN in {home / 'svhn'} is missing")
    except Unavailable:
        if not download:
            raise
        parts = _read(places[0][0], download=True)
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


def _read(file: Path, download: bool = False):
    """Read both files of a folder, of which the training file says where it is."""
    from torchvision.datasets import SVHN  # slow to import, and needed here alone

    with sound(f"SVHN in {file.parent}", "could not be downloaded" if download else "is damaged or not whole"):
        if download:
            file.parent.mkdir(parents=True, exist_ok=True)
        loaded = [SVHN(file.parent, part, download=download) for part in ("train", "test")]
    return [(part.data, part.labels) for part in loaded]
