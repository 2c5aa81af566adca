"""CIFAR-10, from torchvision's folder or from a packed copy in the data root."""

import io
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torchvision
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from .base import FAULTS, Dataset, Unavailable, assemble, check, data_root, pixels

STAND_IN = "photographs"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Of images and labels as unsigned bytes, training part first.
SHA256_SUBSET = "cd60a996609aff483686083854fd2408aea76fe47653456432f156b9c6102406"
SHA256_PACK = "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660"
blurred = partial(gaussian_blur, kernel_size=[21, 21], sigma=[5.0, 5.0])


def load(train=None, test=None, seed=0, root=None, download=False) -> Dataset:
    """Load CIFAR-10; the baseline of an image is its Gaussian blur (kernel 21, width 5).

    Looked for in this order: torchvision's `cifar-10-batches-py` in `<root>/cifar10` or `<root>`, then in
    `<root>/cifar10` the subset `subset_10k.npz` where both sizes fit in it, the pack `*.webps` with `index.npz`, a
    download, and the subset again (None then means all of the subset).

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
    subset, pack = folder / "subset_10k.npz", folder / "index.npz"
    try:
        if official:
            parts, source = _read_official(official, download), "torchvision's files, MD5 checked"
        elif subset.is_file() and (_fits(train, test) or not (pack.is_file() or download)):
            parts, source = _read_subset(subset), "a class-balanced subset of 10,000, SHA-256 checked"
        elif pack.is_file():
            parts, source = _read_pack(folder), "a lossless pack of the whole, SHA-256 checked"
        elif download:
            parts, source = _read_official(folder, download), "torchvision's files, MD5 checked"
        else:
            raise Unavailable(f"there is neither cifar-10-batches-py nor a packed copy in {folder}")
    except Unavailable:
        raise
    except FAULTS as error:
        raise Unavailable(f"CIFAR-10 in {folder} is damaged or could not be downloaded ({error})") from error
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


def _fits(train: int | None, test: int | None) -> bool:
    return train is not None and train <= 8_000 and test is not None and test <= 2_000


def _read_subset(subset: Path):
    with np.load(subset) as arrays:
        parts = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    check((array for part in parts for array in part), SHA256_SUBSET, subset)
    return parts


def _read_pack(folder: Path):
    with np.load(folder / "index.npz") as arrays:
        offsets, labels = arrays["offsets"], arrays["labels"]
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    files = [(folder / f"{name}.webps").read_bytes() for name in names]
    images = np.concatenate([unpack(raw, limits) for raw, limits in zip(files, offsets, strict=True)])
    parts = (images[:50_000], labels[:50_000]), (images[50_000:], labels[50_000:])
    check((array for part in parts for array in part), SHA256_PACK, folder)
    return parts


def unpack(raw: bytes, offsets: np.ndarray) -> np.ndarray:
    """Decode lossless WebP mosaics of 20 × 20 images, one mosaic after the other, images row by row.

    Args:
        raw: the mosaics' bytes.
        offsets: where each begins and the last ends, `(M + 1,)`.

    Returns:
        uint8 images `(400 M, 32, 32, 3)`.
    """
    images = []
    for start, stop in pairwise(offsets):
        with Image.open(io.BytesIO(raw[start:stop])) as mosaic:
            tiles = np.asarray(mosaic.convert("RGB")).reshape(20, 32, 20, 32, 3)
        images.append(tiles.swapaxes(1, 2).reshape(400, 32, 32, 3))
    return np.concatenate(images)
