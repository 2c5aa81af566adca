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

PACKAGE = Path(__file__).resolve().parents[1]
# The one place that finds them: a wheel carries the folder within the package (see `setup.py`), a clone beside it.
CHECKPOINTS = next(
    (folder for folder in (PACKAGE / "checkpoints", PACKAGE.parent / "data" / "checkpoints") if folder.is_dir()),
    PACKAGE / "checkpoints",
)
ARCHITECTURES = {"resnet": small_resnet, "narrow": partial(small_resnet, (16, 32, 64, 128)), "vit": ViT}


def names() -> tuple[str, ...]:
    """Return the names of the encoders that this project trained and ships."""
    return tuple(sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors")))


def card(name: str) -> dict:
    """Return an encoder's card: command, data, seed, seconds, scores beside chance and an untrained network's.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the package was copied without its checkpoints.
    """
    return json.loads(_path("name", name).with_suffix(".json").read_text(encoding="utf-8"))


def load(name: str) -> nn.Module:
    """Load an encoder that this project trained: images `(B, 3, H, W)` in [0, 1] to `(B, D)`, frozen, in float32.

    Raises:
        ValueError: an unknown name, or a file that does not have the checksum on its card.
        FileNotFoundError: the package was copied without its checkpoints.

    >>> load("scenes-supervised").training
    False
    """
    encoder = ARCHITECTURES[card(name)["architecture"]]()
    encoder.load_state_dict(_checked(_path("name", name)))  # kept in half precision, copied into float32
    return frozen(encoder)


def weights(task: str, run: str) -> dict[str, Tensor]:
    """Return the weights of an encoder of chapter 4 that was trained at the published setting, as a state dict.

    Args:
        task: `"rec"`, `"den"`, `"inp"`, `"cls"` or `"caps"` (of the smaller capsule network).
        run: seed and number of the training, such as `"0-4"`; the task's card lists them.

    Raises:
        ValueError: an unknown task or run, or a file that does not have the checksum on its card.
        FileNotFoundError: the package was copied without its checkpoints.

    >>> weights("rec", "0-0")["0.weight"].shape
    torch.Size([8, 1, 3, 3])
    """
    tensors = _checked(_path("task", task, "pretext"))
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


def _path(argument: str, name: str, folder: str = "") -> Path:
    paths = {path.stem: path for path in (CHECKPOINTS / folder).glob("*.safetensors")}
    if not paths:
        raise FileNotFoundError(
            f"{CHECKPOINTS / folder} holds no weights; install the package's wheel, or use a clone."
        )
    if name not in paths:
        raise ValueError(f"{argument} must be one of {', '.join(sorted(paths))}; got {name!r}.")
    return paths[name]
