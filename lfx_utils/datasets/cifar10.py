"""CIFAR-10, from torchvision's folder or from a packed copy in the data root."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from .base import Dataset, assemble, pixels
from .files import Unavailable, check, data_root, first_sound, present, sound

STAND_IN = "photographs"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Of images and labels as unsigned bytes, training part first.
SHA256_SUBSET = "cd60a996609aff483686083854fd2408aea76fe47653456432f156b9c6102406"
SHA256_PACK = "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660"


def blurred(images: Tensor) -> Tensor:
    """Blur images `(N, C, H, W)` by a Gaussian, kernel 21 and width 5."""
    from torchvision.transforms.functional import gaussian_blur  # slow to import, and needed here alone

    return gaussian_blur(images, kernel_size=[21, 21], sigma=[5.0, 5.0])


def load(train=None, test=None, seed=0, root=None, download=False) -> Dataset:
    """Load CIFAR-10; the baseline of an image is its Gaussian blur (kernel 21, width 5).

    Looked for in this order, and the first sound one serves: torchvision's `cifar-10-batches-py` in `<root>/cifar10` or
    `<root>`, then in `<root>/cifar10` the subset `subset_10k.npz` where both sizes fit in it, the pack `*.webps` with
    `index.npz`, a download, and the subset again (None then means all of the subset).

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
    subset = folder / "subset_10k.npz", _read_subset
    local = [(place / "cifar-10-batches-py", _read_official) for place in (folder, home)]
    local += ([subset] if _fits(train, test) else []) + [(folder / "index.npz", _read_pack)]
    missing = f"there is neither cifar-10-batches-py nor a packed copy in {folder}"
    try:
        parts, source = first_sound(local if download else [*local, subset], missing)
    except Unavailable:
        if not download:
            raise
        try:
            parts, source = _download(folder)
        except Unavailable:
            if not present(subset[0]):
                raise
            parts, source = _read_subset(subset[0])
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


def _read_official(batches: Path, download: bool = False):
    """Only torchvision unpickles, and only after it has compared every file's MD5."""
    from torchvision.datasets import CIFAR10  # slow to import, and needed here alone

    with sound(f"CIFAR-10 in {batches.parent}", "could not be downloaded" if download else "is damaged"):
        parts = [CIFAR10(batches.parent, part, download=download) for part in (True, False)]
    return [(part.data, np.asarray(part.targets)) for part in parts], "torchvision's files, MD5 checked"


def _download(folder: Path):
    return _read_official(folder / "cifar-10-batches-py", download=True)


def _fits(train: int | None, test: int | None) -> bool:
    return train is not None and train <= 8_000 and test is not None and test <= 2_000


def _read_subset(subset: Path):
    with sound(subset):
        with np.load(subset) as arrays:
            parts = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
        check((array for part in parts for array in part), SHA256_SUBSET, subset)
    return parts, "a class-balanced subset of 10,000, SHA-256 checked"


def _read_pack(index: Path):
    with sound(f"CIFAR-10 in {index.parent}"):
        with np.load(index) as arrays:
            offsets, labels = arrays["offsets"], arrays["labels"]
        names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
        files = [(index.parent / f"{name}.webps").read_bytes() for name in names]
        images = np.concatenate([unpack(raw, limits) for raw, limits in zip(files, offsets, strict=True)])
        parts = (images[:50_000], labels[:50_000]), (images[50_000:], labels[50_000:])
        check((array for part in parts for array in part), SHA256_PACK, index.parent)
    return parts, "a lossless pack of the whole, SHA-256 checked"


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
