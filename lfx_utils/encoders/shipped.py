"""The encoders that this project ships, by name: checked against their cards, frozen, beside their untrained twins."""

import hashlib
import json
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lfx_utils.encoders.published import frozen
from lfx_utils.models.efficientnet import efficientnet_lite0
from lfx_utils.models.resnet import small_resnet
from lfx_utils.models.vit import ViT

PACKAGE = Path(__file__).resolve().parents[1]
# The one place that finds them: a wheel carries the folder within the package (see `setup.py`), a clone beside it.
CHECKPOINTS = next(
    (folder for folder in (PACKAGE / "checkpoints", PACKAGE.parent / "data" / "checkpoints") if folder.is_dir()),
    PACKAGE / "checkpoints",
)
ARCHITECTURES = {
    "resnet": small_resnet,
    "narrow": partial(small_resnet, (16, 32, 64, 128)),
    "vit": ViT,
    "efficientnet-lite0": efficientnet_lite0,
}


def names() -> tuple[str, ...]:
    """Return the names of the encoders that this project ships."""
    return tuple(sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors")))


def card(name: str, folder: str = "") -> dict:
    """Return an encoder's card: command, data, seed, licence, scores beside chance and an untrained network's.

    Args:
        name: of an encoder, or of a task of chapter 4 with `folder="pretext"`, whose card lists its trainings.
        folder: below the checkpoints.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the package was copied without its checkpoints.

    >>> card("den", "pretext")["runs"]["0-4"]["epochs"]
    100
    """
    return json.loads(_path("name", name, folder).with_suffix(".json").read_text(encoding="utf-8"))


def load(name: str) -> nn.Module:
    """Load an encoder that this project ships: images `(B, 3, H, W)` in [0, 1] to `(B, D)`, frozen, in float32.

    Raises:
        ValueError: an unknown name, or a file that does not have the checksum on its card.
        FileNotFoundError: the package was copied without its checkpoints.
        ModuleNotFoundError: `efficientnet-lite0` without timm.

    >>> load("scenes-supervised").training
    False
    """
    about = card(name)
    return _encoder(_trained(name), f"{name}, {about['objective']} on {about['data']}")


def untrained(name: str, seed: int = 0) -> nn.Module:
    """Return an encoder's untrained twin: the same network, its weights drawn anew from the seed, frozen.

    Raises:
        ValueError: an unknown name.
        ModuleNotFoundError: as for `load`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _encoder(ARCHITECTURES[card(name)["architecture"]](), f"{name}, untrained")


def classifier(name: str = "efficientnet-lite0") -> nn.Module:
    """Load an encoder followed by its classifier, images `(B, 3, H, W)` in [0, 1] to logits, frozen, in float32.

    Args:
        name: of a shipped encoder that has one; `efficientnet-lite0` gives ImageNet's `(B, 1000)`.

    Raises:
        ValueError: an unknown name, an encoder without a classifier, or a file that is not the card's.
        ModuleNotFoundError: as for `load`.
    """
    network = _trained(name)
    if not hasattr(network, "classifier"):
        raise ValueError(
            f"name must be that of an encoder with a classifier, such as efficientnet-lite0; got {name!r}."
        )
    return network


def _trained(name: str) -> nn.Module:
    network = ARCHITECTURES[card(name)["architecture"]]()
    network.load_state_dict(_checked(_path("name", name)))  # kept in half precision, copied into float32
    return frozen(network)


def _encoder(network: nn.Module, origin: str) -> nn.Module:
    return frozen(network[:-1] if hasattr(network, "classifier") else network, origin)


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
    return _run(_checked(_path("task", task, "pretext")), run)


def snapshots(run: str) -> list[dict[str, Tensor]]:
    """Return the states of chapter 3's denoising autoencoder in one training at the published setting.

    They are state dicts of `lfx_utils.models.autoencoders.mnist_autoencoder(4)`, kept in half precision and returned in
    float32: one after every tenth epoch, as TracIn asks for, and last the one with the smallest test loss.

    Args:
        run: the seed of the training, such as `"0"`; the card `card("digits", "snapshots")` lists them.

    Raises:
        ValueError: an unknown run, or a file that does not have the checksum on its card.
        FileNotFoundError: the package was copied without its checkpoints.

    >>> snapshots("0")[-1]["encoder.0.weight"].shape
    torch.Size([8, 1, 3, 3])
    """
    states = {}
    for name, tensor in _run(_checked(_path("task", "digits", "snapshots")), run).items():
        number, name = name.split(".", 1)
        states.setdefault(int(number), {})[name] = tensor.float() if tensor.is_floating_point() else tensor
    return [states[number] for number in sorted(states)]


def _run(tensors: dict[str, Tensor], run: str) -> dict[str, Tensor]:
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
