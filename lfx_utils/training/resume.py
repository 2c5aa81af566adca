"""Files that a broken-off training goes on from. Each belongs to one run, and another run's is refused."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType

import torch
from torch import Tensor


def checksum(value) -> str:
    """Return the SHA-256 of tensors of any precision, and of plain values, in lists and dictionaries of any depth."""
    digest = hashlib.sha256()

    def add(part) -> None:
        if isinstance(part, Tensor):
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(part, Mapping):
            for name, each in part.items():
                digest.update(str(name).encode())
                add(each)
        elif isinstance(part, list | tuple):
            for each in part:
                add(each)
        else:
            digest.update(repr(part).encode())

    add(value)
    return digest.hexdigest()


def opened(checkpoint: Path | str, run: Mapping, epochs: float = math.inf, device: torch.device | str = "cpu") -> dict:
    """Return what `save` last wrote for this run, or an empty dictionary where there is no file yet.

    A training may be asked for more epochs than before, which continues it, but not for fewer than it has had.

    Args:
        checkpoint: the file.
        run: what tells one run from another, by name: numbers, checksums, and tensors, which may differ by rounding.
        epochs: asked for, of a training.
        device: where the tensors go.

    Raises:
        ValueError: a folder, a file that cannot be written or is damaged, another run's, or one with more epochs.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        raise ValueError(f"checkpoint must name a file, got the folder {path}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _part(path)
        part.touch()
        part.unlink()
    except OSError as error:
        raise ValueError(f"checkpoint must name a file that can be written, got {path} ({error}).") from error
    if not path.exists():
        return {}
    try:
        state = torch.load(path, weights_only=True, map_location=device)
        theirs, epoch = state.pop("run"), state.get("epoch", 0)
    except Exception as error:
        raise ValueError(
            f"checkpoint {path} is damaged, or is no file of a training ({error}); delete it, or name another."
        ) from error
    differing = [
        _said(name, theirs.get(name), run.get(name))
        for name in dict.fromkeys([*run, *theirs])
        if not _same(theirs.get(name), run.get(name))
    ]
    if differing:
        raise ValueError(
            f"checkpoint {path} is another run's, which differs in: {', '.join(differing)}; delete it, or name another."
        )
    if epoch > epochs:
        raise ValueError(
            f"checkpoint {path} holds {epoch} epochs of this run, and epochs={epochs} are fewer; delete it, or ask for "
            "more."
        )
    return state


def save(checkpoint: Path | str, run: Mapping, **state) -> None:
    """Write a run's state, its `epoch` in it if it has any, or leave the file as it was where writing is broken off."""
    path = Path(checkpoint).expanduser()
    torch.save({"run": dict(run), **state}, _part(path))
    _part(path).replace(path)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _same(one, other) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        one, other = one.cpu(), other.cpu()
        # Another machine, or another number of threads, adds up in another order.
        return one.shape == other.shape and torch.allclose(one, other, 1e-5, 1e-5 * other.abs().max(), equal_nan=True)
    return type(one) is type(other) and one == other


def _said(name: str, theirs, ours) -> str:
    plain = all(isinstance(value, int | float | NoneType) for value in (theirs, ours))
    return f"{name} ({theirs} there, {ours} here)" if plain else name
