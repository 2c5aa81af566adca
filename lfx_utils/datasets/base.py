"""What all data sets share: the dataclass they return, and seeded draws."""

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """A train and a test part, held in memory.

    Args:
        name: what it is (`"digits"` where digits stand in for MNIST).
        train: float32 images `(N, C, H, W)` in [0, 1], or sequences `(N, T, 1)`.
        test: the same for the test part.
        train_labels: int64 `(N,)`, indices into `class_names`.
        test_labels: the same for the test part.
        class_names: one name a label.
        baseline: maps a batch of inputs to their baselines x̄ of the same shape.
        provenance: one sentence: which files or which generator and, for a stand-in, what it stands in for and why.
    """

    name: str
    train: Tensor = field(repr=False)
    test: Tensor = field(repr=False)
    train_labels: Tensor = field(repr=False)
    test_labels: Tensor = field(repr=False)
    class_names: tuple[str, ...]
    baseline: Callable[[Tensor], Tensor] = field(repr=False)
    provenance: str


def draw(name: str, part: str, size: int | None, total: int, seed: int) -> Tensor:
    """Return the rows of a random draw without replacement; a larger draw with the same seed begins with the smaller.

    Args:
        name: the data set, for the message.
        part: `"train"` or `"test"`, for the message.
        size: how many rows; None for all of them, in their own order.
        total: how many there are.
        seed: of a generator of its own, so that the global one is neither read nor moved.

    Raises:
        ValueError: `size` is not an integer from 1 to `total`.

    >>> draw("digits", "train", 3, 100, seed=0).tolist() == draw("digits", "train", 9, 100, seed=0)[:3].tolist()
    True
    """
    if size is None:
        return torch.arange(total)
    if not isinstance(size, Integral) or isinstance(size, bool) or not 1 <= size <= total:
        raise ValueError(f"{part} must be None or an integer from 1 to {total}, all that {name!r} has; got {size!r}.")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:size]


def assemble(name, train, test, sizes, seed, convert, **rest) -> Dataset:
    """Draw from both parts, and convert only what is drawn.

    Args:
        name: of the data set.
        train: pair of arrays, inputs `(N, …)` and labels `(N,)`.
        test: the same for the test part.
        sizes: pair, how many examples of each (None for all).
        seed: of the draw.
        convert: maps an array of drawn inputs to their float32 tensor.
        **rest: `class_names`, `baseline` and `provenance`.
    """
    columns = {}
    for part, (inputs, labels), size in zip(("train", "test"), (train, test), sizes, strict=True):
        rows = draw(name, part, size, len(labels), seed).numpy()
        columns[part] = convert(inputs[rows])
        columns[f"{part}_labels"] = torch.as_tensor(labels[rows].astype(np.int64))
    return Dataset(name=name, **columns, **rest)


def pixels(images: np.ndarray) -> Tensor:
    """Turn uint8 images `(N, H, W)` or `(N, H, W, C)` into float32 `(N, C, H, W)` in [0, 1]."""
    images = torch.as_tensor(images)
    images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return images.float().div_(255).contiguous()
