"""Small colour crops of the photographs that come with scikit-image: CIFAR-10's stand-in."""

from functools import lru_cache

import numpy as np
import skimage
import torch
import torch.nn.functional as F

from .base import Dataset, assemble, pixels
from .cifar10 import blurred

CLASS_NAMES = ("astronaut", "cat", "coffee", "galaxies", "motorcycle", "retina", "rocket", "tissue")
FUNCTIONS = (
    "astronaut", "chelsea", "coffee", "hubble_deep_field",
    "stereo_motorcycle", "retina", "rocket", "immunohistochemistry",
)  # fmt: skip
GRID, BLOCK, CROP, STRIDE = 4, 64, 32, 4
TEST_COLUMNS = (1, 3, 0, 2)  # in each row of blocks
PER_BLOCK = ((BLOCK - CROP) // STRIDE + 1) ** 2


def load(train=None, test=None, seed=0, root=None, download=False) -> Dataset:
    """Load 32 × 32 crops of eight photographs; the label is the photograph, the baseline its blur as for CIFAR-10.

    Each photograph's central square is cut into 4 × 4 blocks, one of each row and column is kept for testing, and
    each block is reduced to 64 × 64 by itself. Crops lie within one block, every 4 pixels: no pixel of the original
    is in both parts. Crops of one block overlap, so the training examples are not independent of one another.

    Args:
        train: how many of the 7,776 training crops, None for all.
        test: how many of the 2,592 test crops, None for all.
        seed: of the draw.
        root: not used, the photographs are installed with scikit-image.
        download: not used.

    Returns:
        images `(N, 3, 32, 32)`, labels 0–7.

    Source: scikit-image's `skimage.data`.

    >>> load(train=5, test=2).train.shape
    torch.Size([5, 3, 32, 32])
    """
    rows, columns = np.indices((GRID, GRID)).reshape(2, -1)
    testing = columns == np.array(TEST_COLUMNS)[rows]
    parts = {}
    for part, kept in (("train", ~testing), ("test", testing)):
        crops = _blocks()[:, torch.as_tensor(kept)].unfold(3, CROP, STRIDE).unfold(4, CROP, STRIDE)
        images = crops.permute(0, 1, 3, 4, 5, 6, 2).reshape(-1, CROP, CROP, 3).numpy()
        parts[part] = images, np.repeat(np.arange(len(FUNCTIONS)), len(images) // len(FUNCTIONS))
    return assemble(
        "photographs",
        **parts,
        sizes=(train, test),
        seed=seed,
        convert=pixels,
        class_names=CLASS_NAMES,
        baseline=blurred,
        provenance=f"Crops of eight photographs of scikit-image {skimage.__version__}; train and test share no region.",
    )


def sizes() -> tuple[int, int]:
    """Return how many training and test crops there are."""
    testing = len(FUNCTIONS) * GRID * PER_BLOCK
    return (GRID - 1) * testing, testing


@lru_cache(maxsize=1)
def _blocks() -> torch.Tensor:
    """Cut every photograph's central square into blocks and reduce each, uint8 `(8, 16, 3, 64, 64)`."""
    return torch.stack([_reduce(getattr(skimage.data, function)()) for function in FUNCTIONS])


def _reduce(picture: np.ndarray | tuple[np.ndarray, ...]) -> torch.Tensor:
    if isinstance(picture, tuple):  # a stereo pair and its disparities
        picture = picture[0]
    side = min(picture.shape[:2]) // GRID
    top, left = (np.array(picture.shape[:2]) - GRID * side) // 2
    square = torch.as_tensor(picture[top : top + GRID * side, left : left + GRID * side]).float()
    blocks = square.view(GRID, side, GRID, side, 3).permute(0, 2, 4, 1, 3).flatten(0, 1)
    return F.interpolate(blocks, size=BLOCK, mode="bilinear", antialias=True, align_corners=False).round().byte()
