"""Trained encoders by name: the small ones that this project ships, and the large ones that the papers explain."""

import hashlib
import json
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from lfx_utils.encoders.published import frozen, pretrained
from lfx_utils.models.resnet import small_resnet
from lfx_utils.models.vit import ViT

__all__ = ["card", "frozen", "load", "names", "pretrained", "weights"]

CHECKPOINTS = Path(__file__).resolve().parents[2] / "data" / "checkpoints"
ARCHITECTURES = {"resnet": small_resnet, "narrow": partial(small_resnet, (16, 32, 64, 128)), "vit": ViT}


def names() -> tuple[str, ...]:
    """Return the names of the encoders that this project trained and ships."""
    return tuple(sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors")))


def card(name: str) -> dict:
    """Return an encoder's card: command, data, seed, seconds, scores beside chance and an untrained network's.

    Raises:
        ValueError: an unknown name.
    """
    return json.loads(_shipped(name).with_suffix(".json").read_text(encoding="utf-8"))


def load(name: str) -> nn.Module:
    """Load an encoder that this project trained: images `(B, 3, H, W)` in [0, 1] to `(B, D)`, frozen, in float32.

    Raises:
        ValueError: an unknown name, or a file that does not have the checksum on its card.

    >>> load("scenes-supervised").training
    False
    """
    encoder = ARCHITECTURES[card(name)["architecture"]]()
    encoder.load_state_dict(_checked(_shipped(name)))  # kept in half precision, copied into float32
    return frozen(encoder)


def weights(task: str, run: str) -> dict[str, Tensor]:
    """Return the weights of an encoder of chapter 4 that was trained at the published setting, as a state dict.

    Args:
        task: `"rec"`, `"den"`, `"inp"`, `"cls"` or `"caps"` (of the smaller capsule network).
        run: seed and number of the training, such as `"0-4"`; the task's card lists them.

    Raises:
        ValueError: an unknown task or run, or a file that does not have the checksum on its card.

    >>> weights("rec", "0-0")["0.weight"].shape
    torch.Size([8, 1, 3, 3])
    """
    tasks = {path.stem: path for path in (CHECKPOINTS / "pretext").glob("*.safetensors")}
    if task not in tasks:
        raise ValueError(f"task must be one of {', '.join(sorted(tasks))}; got {task!r}.")
    tensors = _checked(tasks[task])
    found = {name.removeprefix(f"{run}."): each for name, each in tensors.items() if name.startswith(f"{run}.")}
    if not found:
        runs = sorted({name.split(".", 1)[0] for name in tensors})
        raise ValueError(f"run must be one of {', '.join(runs)}; got {run!r}.")
    return found


def _checked(path: Path) -> dict[str, Tensor]:
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["sha256"]:
        raise ValueError(f"{path} is not the file that its card describes (its SHA-256 differs).")
    return load_file(path)


def _shipped(name: str) -> Path:
    if name not in names():
        raise ValueError(f"name must be one of {', '.join(names())}; got {name!r}.")
    return CHECKPOINTS / f"{name}.safetensors"
