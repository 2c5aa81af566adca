"""MNIST, from the four official files; torchvision knows where they are and what they must be."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import torch
import torchvision

from .base import Dataset, Unavailable, assemble, data_root, pixels

STAND_IN = "digits"


def load(train=None, test=None, seed=0, root=None, download=False) -> Dataset:
    """Load MNIST from `<root>/mnist/MNIST/raw` (or `<root>/MNIST/raw`); the baseline is a black image.

    The packed files are read as they are, after their MD5 has been compared with torchvision's, so that the root
    may be read-only.

    Args:
        train: how many of the 60,000 training examples, None for all.
        test: how many of the 10,000 test examples, None for all.
        seed: of the draw.
        root: the data root, see `data_root`.
        download: let torchvision fetch what is missing.

    Returns:
        images `(N, 1, 28, 28)`, labels 0–9.

    Raises:
        Unavailable: a file is missing or not sound, or the download failed.

    Source: LeCun, Cortes & Burges, The MNIST database; baseline from LF, App. C.1.
    """
    home = data_root(root)
    if download:
        try:
            torchvision.datasets.MNIST(home / "mnist", download=True)
        except (OSError, RuntimeError) as error:
            raise Unavailable(f"torchvision's download of MNIST to {home / 'mnist'} failed ({error})") from error
    raw = next((path for path in (home / "mnist/MNIST/raw", home / "MNIST/raw") if path.is_dir()), None)
    if raw is None:
        raise Unavailable(f"there is no folder {home / 'mnist/MNIST/raw'}")
    parts = {
        part: (read_idx(raw, f"{prefix}-images-idx3-ubyte"), read_idx(raw, f"{prefix}-labels-idx1-ubyte"))
        for part, prefix in (("train", "train"), ("test", "t10k"))
    }
    return assemble(
        "mnist",
        **parts,
        sizes=(train, test),
        seed=seed,
        convert=pixels,
        class_names=tuple("0123456789"),
        baseline=torch.zeros_like,
        provenance="MNIST, the four official files, MD5 as in torchvision's MNIST.resources.",
    )


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read one file of MNIST, packed (`name.gz`, MD5 checked) or else unpacked.

    Returns:
        uint8 array of the shape that the file's header gives.

    Raises:
        Unavailable: the file is missing, or is not the official one.
    """
    packed = folder / f"{name}.gz"
    try:
        if packed.is_file():
            raw = packed.read_bytes()
            if hashlib.md5(raw).hexdigest() != dict(torchvision.datasets.MNIST.resources)[packed.name]:
                raise Unavailable(f"{packed} is not the official file (its MD5 differs); delete it")
            raw = gzip.decompress(raw)
        else:
            raw = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise Unavailable(f"{packed} is missing") from error
    rank = raw[3] if len(raw) > 3 else 0
    start = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", raw[4:start]) if len(raw) > start else (0,)
    if raw[:3] != b"\0\0\x08" or len(raw) - start != np.prod(shape):
        raise Unavailable(f"{folder / name} is cut short or not an IDX file; delete it")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
