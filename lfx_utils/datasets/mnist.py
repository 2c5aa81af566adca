"""MNIST, from the four official files; torchvision knows where they are and what they must be."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import torch

from .base import Dataset, assemble, pixels
from .files import Unavailable, data_root, first_sound, sound

STAND_IN = "digits"
# MD5 of the unpacked files, header and shape; the packed ones have the MD5 of torchvision's MNIST.resources.
FILES = {
    "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", 16, (60_000, 28, 28)),
    "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", 8, (60_000,)),
    "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", 16, (10_000, 28, 28)),
    "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", 8, (10_000,)),
}


def load(train=None, test=None, seed=0, root=None, download=False) -> Dataset:
    """Load MNIST from `<root>/mnist/MNIST/raw` (or `<root>/MNIST/raw`); the baseline is a black image.

    Packed files (`.gz`) are unpacked in memory, so that the root may be read-only; every file's MD5 is checked, and of
    several copies the first sound one serves.

    Args:
        train: how many of the 60,000 training examples, None for all.
        test: how many of the 10,000 test examples, None for all.
        seed: of the draw.
        root: the data root, see `data_root`.
        download: let torchvision fetch what is missing or damaged.

    Returns:
        images `(N, 1, 28, 28)`, labels 0–9.

    Raises:
        Unavailable: a file is missing or not sound, or the download failed.

    Source: LeCun, Cortes & Burges, The MNIST database; baseline from LF, App. C.1.
    """
    home = data_root(root)
    try:
        images, labels, test_images, test_labels = _read(home)
    except Unavailable:
        if not download:
            raise
        with sound("MNIST", "could not be downloaded"):
            _download(home / "mnist/MNIST/raw")
        images, labels, test_images, test_labels = _read(home)
    return assemble(
        "mnist",
        train=(images, labels),
        test=(test_images, test_labels),
        sizes=(train, test),
        seed=seed,
        convert=pixels,
        class_names=tuple("0123456789"),
        baseline=torch.zeros_like,
        provenance="MNIST, the four official files, MD5 checked.",
    )


def _read(home: Path) -> list[np.ndarray]:
    folders = home / "mnist/MNIST/raw", home / "MNIST/raw"
    return [
        first_sound(_copies([folder / name for folder in folders], *facts), f"{folders[0] / name}.gz is missing")
        for name, facts in FILES.items()
    ]


def _download(folder: Path) -> None:
    """Fetch the four files; unlike `MNIST(download=True)`, a damaged unpacked file is no reason to leave it."""
    from torchvision.datasets import MNIST  # slow to import, and needed here alone
    from torchvision.datasets.utils import download_and_extract_archive

    for file, md5 in MNIST.resources:
        for mirror in MNIST.mirrors:
            try:
                download_and_extract_archive(f"{mirror}{file}", folder, filename=file, md5=md5)
                break
            except (OSError, RuntimeError) as error:
                reason = error
        else:
            raise reason


def read_idx(path: Path, md5: str, header: int, shape: tuple[int, ...]) -> np.ndarray:
    """Read one file of unsigned bytes in the IDX format, packed as `path.gz` or unpacked, whichever is sound.

    Args:
        path: of the unpacked file.
        md5: of the unpacked file.
        header: its length in bytes.
        shape: of what follows the header.

    Raises:
        Unavailable: the file is missing or damaged.
    """
    return first_sound(_copies([path], md5, header, shape), f"{path}.gz is missing")


def _copies(paths: list[Path], md5: str, header: int, shape: tuple[int, ...]):
    def read(path: Path) -> np.ndarray:
        with sound(path):
            raw = path.read_bytes()
            raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        if hashlib.md5(raw).hexdigest() != md5:
            raise Unavailable(f"{path} is not the official file (its MD5 differs)")
        return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)

    return [(copy, read) for path in paths for copy in (path.with_name(f"{path.name}.gz"), path)]
