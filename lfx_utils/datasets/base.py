"""What all data sets share: the dataclass they return, the data root, seeded draws and downloads."""

import hashlib
import os
import tempfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.client import HTTPException
from numbers import Integral
from pathlib import Path

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


class Unavailable(OSError):
    """The files of a data set are missing or not sound, or their download failed."""


PAUSE = 1.0  # seconds before the second attempt at a download; twice that before the third

# What reading a damaged file, or a download, may end in.
FAULTS = (OSError, RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def data_root(root: str | os.PathLike | None = None) -> Path:
    """Return the folder that holds the data: `root`, else `$LFX_DATA`, else a cache folder of the user's.

    >>> data_root("somewhere").name
    'somewhere'
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lfx"
    return Path(root or os.environ.get("LFX_DATA") or cache).expanduser()


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


def check(arrays: Iterable[np.ndarray], sha256: str, source) -> None:
    """Compare the checksum of the arrays' values, one after the other, with the known one.

    Raises:
        Unavailable: they differ.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    if digest.hexdigest() != sha256:
        raise Unavailable(f"{source} does not hold the known values (their SHA-256 differs)")


def fetch(address: str, attempts: int = 3, timeout: float = 30) -> bytes:
    """Download one file into memory, with a growing pause between attempts.

    Raises:
        Unavailable: every attempt failed.
    """
    for attempt in range(attempts):
        time.sleep(PAUSE * attempt)
        try:
            with urllib.request.urlopen(address, timeout=timeout) as answer:
                return answer.read()
        except (OSError, HTTPException) as error:
            reason = error
    raise Unavailable(f"{address} could not be downloaded in {attempts} attempts ({reason})")


def store(path: Path, **arrays: np.ndarray) -> None:
    """Write the arrays as a compressed `.npz`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        np.savez_compressed(draft, **arrays)
        os.replace(draft, path)
