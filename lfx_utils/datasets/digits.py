"""Handwritten digits that come with scikit-learn, in MNIST's size: MNIST's stand-in."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Dataset, assemble

N_TRAIN, N_TEST = 1_437, 360


def load(train=None, test=None, seed=0, root=None, download=False) -> Dataset:
    """Load the 1,797 digits, 28 × 28 in [0, 1]; the baseline is a black image.

    The test part is the end of the file: its order follows the writers, so that few of them are in both parts.

    Args:
        train: how many training examples (at most 1,437), None for all.
        test: how many test examples (at most 360), None for all.
        seed: of the draw.
        root: not used, the digits are installed with scikit-learn.
        download: not used.

    Returns:
        images `(N, 1, 28, 28)`, labels 0–9.

    Source: Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits, UCI; scikit-learn's `load_digits`.

    >>> load(train=5, test=2).train.shape
    torch.Size([5, 1, 28, 28])
    """
    import sklearn  # slow to import, and needed here alone
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return assemble(
        "digits",
        train=(images[:N_TRAIN], labels[:N_TRAIN]),
        test=(images[N_TRAIN:], labels[N_TRAIN:]),
        sizes=(train, test),
        seed=seed,
        convert=_enlarge,
        class_names=tuple("0123456789"),
        baseline=torch.zeros_like,
        provenance=f"The 8 × 8 digits of scikit-learn {sklearn.__version__}, enlarged bilinearly to 28 × 28.",
    )


def sizes() -> tuple[int, int]:
    """Return how many training and test digits there are."""
    return N_TRAIN, N_TEST


def _enlarge(images: np.ndarray) -> Tensor:
    small = torch.as_tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    return F.interpolate(small, size=28, mode="bilinear", align_corners=False)
