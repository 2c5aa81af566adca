"""CIFAR-10, from torchvision's folder or from a packed copy in the data root."""

import io
from functools import partial
from pathlib import Path

import numpy as np
import torchvision
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from .base import Dataset, Unavailable, assemble, data_root, pixels

STAND_IN = "photographs"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
blurred = partial(gaussian_blur, kernel_size=[21, 21], sigma=[5.0, 5.0])


def load(train=None, test=None, seed=0, root=None, download=False) -> Dataset:
    """Load CIFAR-10; the baseline of an image is its Gaussian blur (kernel 21, width 5).

    Looked for in this order: torchvision's `cifar-10-batches-py` in `<root>/cifar10` or `<root>`, then in
    `<root>/cifar10` the subset `subset_10k.npz` where the sizes fit in it, the pack `*.webps` with `index.npz`, and
    the subset again (None then means all of the subset).

    Args:
        train: how many of the 50,000 training examples, None for all.
        test: how many of the 10,000 test examples, None for all.
        seed: of the draw.
        root: the data root, see `data_root`.
        download: let torchvision fetch what is missing.

    Returns:
        images `(N, 3, 32, 32)`, labels 0–9.

    Raises:
        Unavailable: the files are missing or not sound, or the download failed.

    Source: Krizhevsky (2009), Learning multiple layers of features from tiny images; baseline from LF, App. C.1.
    """
    home = data_root(root)
    folder = home / "cifar10"
    official = next((path for path in (folder, home) if (path / "cifar-10-batches-py").is_dir()), None)
    subset, index = folder / "subset_10k.npz", folder / "index.npz"
    try:
        if download or official:
            parts, source = _read_official(official or folder, download), "torchvision's files, MD5 checked"
        elif subset.is_file() and (_fits(subset, train, test) or not index.is_file()):
            parts, source = _read_subset(subset), f"the class-balanced {subset.name}, a part of the whole set"
        elif index.is_file():
            parts, source = _read_pack(folder), "the lossless pack *.webps"
        else:
            raise Unavailable(f"there is neither cifar-10-batches-py nor a packed copy in {folder}")
    except Unavailable:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise Unavailable(f"CIFAR-10 in {folder} could not be read or downloaded ({error})") from error
    return assemble(
        "cifar10",
        *parts,
        sizes=(train, test),
        seed=seed,
        convert=pixels,
        class_names=CLASS_NAMES,
        baseline=blurred,
        provenance=f"CIFAR-10 from {source}.",
    )


def _read_official(folder: Path, download: bool):
    """Only torchvision unpickles, and only after it has compared every file's MD5."""
    parts = (torchvision.datasets.CIFAR10(folder, train=part, download=download) for part in (True, False))
    return [(part.data, np.asarray(part.targets)) for part in parts]


def _fits(subset: Path, train: int | None, test: int | None) -> bool:
    with np.load(subset) as arrays:
        return all(size is not None and size <= len(arrays[y]) for size, y in ((train, "y_train"), (test, "y_test")))


def _read_subset(subset: Path):
    with np.load(subset) as arrays:
        return [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]


def _read_pack(folder: Path):
    """A `.webps` file holds 25 lossless WebP mosaics of 20 × 20 images one after the other, in the official order."""
    with np.load(folder / "index.npz") as arrays:
        offsets, labels = arrays["offsets"], arrays["labels"]
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    images = []
    for name, limits in zip(names, offsets):
        raw = (folder / f"{name}.webps").read_bytes()
        for start, stop in zip(limits, limits[1:]):
            with Image.open(io.BytesIO(raw[start:stop])) as mosaic:
                tiles = np.asarray(mosaic.convert("RGB")).reshape(20, 32, 20, 32, 3)
            images.append(tiles.swapaxes(1, 2).reshape(400, 32, 32, 3))
    images = np.concatenate(images)
    return (images[:50_000], labels[:50_000]), (images[50_000:], labels[50_000:])
