"""Trained encoders by name: the small ones that this project ships, and the large ones that the papers explain."""

import hashlib
import json
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from lfx_utils.models.resnet import small_resnet
from lfx_utils.models.vit import ViT
from lfx_utils.zoo import frozen, pretrained

__all__ = ["card", "frozen", "load", "names", "pretrained"]

CHECKPOINTS = Path(__file__).resolve().parents[1] / "data" / "checkpoints"
ARCHITECTURES = {"resnet": small_resnet, "narrow": partial(small_resnet, (16, 32, 64, 128)), "vit": ViT}


def names() -> tuple[str, ...]:
    """Return the names of the encoders that this project trained and ships."""
    return tuple(sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors")))


def card(name: str) -> dict:
    """Return an encoder's card: command, data, seed, seconds, scores beside chance and an untrained network's.

    Raises:
        ValueError: an unknown name.
    """
    return json.loads(_shipped(name).with_suffix(".json").read_text())


def load(name: str) -> nn.Module:
    """Load an encoder that this project trained: images `(B, 3, H, W)` in [0, 1] to `(B, D)`, frozen, in float32.

    Raises:
        ValueError: an unknown name, or a file that does not have the checksum on its card.

    >>> load("scenes-supervised").training
    False
    """
    path, about = _shipped(name), card(name)
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["sha256"]:
        raise ValueError(f"{path} is not the file that its card describes (its SHA-256 differs).")
    encoder = ARCHITECTURES[about["architecture"]]()
    encoder.load_state_dict(load_file(path))  # kept in half precision, copied into float32
    return frozen(encoder)


def _shipped(name: str) -> Path:
    if name not in names():
        raise ValueError(f"name must be one of {', '.join(names())}; got {name!r}.")
    return CHECKPOINTS / f"{name}.safetensors"
