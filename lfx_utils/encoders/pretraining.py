"""Train the small encoders that the book ships: `python -m lfx_utils.encoders.pretraining NAME`."""

import argparse
import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lfx_utils.datasets import Annotated, load, load_annotated
from lfx_utils.encoders import shipped
from lfx_utils.encoders.published import frozen
from lfx_utils.measures.probes import accuracy, probe
from lfx_utils.models.pretext import DINO, SimCLR, Supervised, SwAV
from lfx_utils.progress import tqdm
from lfx_utils.training import resume

LICENCES = {
    "scenes": "As the project. Trained on generated shapes and on photographs of scikit-image, public domain or CC0.",
    "voc": "For research: trained on PASCAL VOC's photographs, which are their owners', under Flickr's terms of use.",
    "cifar10": "For research: trained on CIFAR-10's photographs, gathered from the web; the set states no licence.",
}
WORK = Path("_build/pretraining").resolve()  # below the working folder


@dataclass(frozen=True)
class Recipe:
    """How an encoder came about.

    Args:
        data: a set of `load_annotated`, or `"cifar10"`.
        objective: `"supervised"`, `"simclr"`, `"swav"` or `"dino"`.
        architecture: of `shipped.ARCHITECTURES`.
        examples: how many training images, None for all.
        epochs: passes over them.
        rate: the largest learning rate of AdamW; it rises for a twentieth of the steps and falls as a cosine.
        size: side of the images.
        start: an encoder of this project to start from, None for random weights.
        shortcut: a class of scenes to put a mark beside.
        swapped: the share of the epochs after which one of the two versions of a scene, that are to be alike, lies on
            another scene's ground; 1 for never, and then scenes are told apart by their grounds.
        area: the least share of an image that a view shows.
    """

    data: str
    objective: str
    architecture: str = "resnet"
    examples: int | None = 20_000
    epochs: int = 10
    rate: float = 2e-3
    size: int = 64
    start: str | None = None
    shortcut: str | None = None
    swapped: float = 1.0
    area: float = 0.6


RECIPES = {
    "scenes-supervised": Recipe("scenes", "supervised"),
    "scenes-simclr": Recipe("scenes", "simclr", epochs=8, area=0.25),
    "scenes-swav": Recipe("scenes", "swav", epochs=6, start="scenes-simclr", swapped=0.0),
    "scenes-dino": Recipe("scenes", "dino", "vit", examples=10_000, epochs=8, rate=1e-3, swapped=0.5),
    "scenes-shortcut": Recipe("scenes", "supervised", "narrow", epochs=6, shortcut="star"),
    "voc-supervised": Recipe("voc", "supervised", examples=None, epochs=40, size=96, start="scenes-supervised"),
    "voc-simclr": Recipe("voc", "simclr", examples=None, epochs=40, size=96, start="scenes-simclr", area=0.25),
    "cifar-simclr": Recipe("cifar10", "simclr", examples=None, epochs=100, size=32, area=0.25),
}


def images(recipe: Recipe, split: str, count: int | None, seed: int, **options) -> Annotated:
    """Load what the recipe trains on, or the test part of it; CIFAR-10's images have neither masks nor boxes."""
    if recipe.data == "cifar10":
        sizes = {"train": 1, "test": 1} | {split: count}
        data = load("cifar10", **sizes, seed=seed)
        labels = torch.nn.functional.one_hot(getattr(data, f"{split}_labels"), len(data.class_names)).bool()
        none = torch.empty(len(labels), 0)
        return Annotated(data.name, getattr(data, split), none, (), (), labels, data.class_names, data.provenance)
    if recipe.shortcut:
        options["shortcut"] = recipe.shortcut
    return load_annotated(
        recipe.data, split=split, count=count, seed=seed, size=recipe.size, with_masks=False, **options
    )


def learner(recipe: Recipe, classes: int, seed: int) -> nn.Module:
    """Put the recipe's objective around its encoder, with weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = shipped.ARCHITECTURES[recipe.architecture]()
        if recipe.start:
            encoder.load_state_dict(shipped.load(recipe.start).state_dict())
        features = encoder.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
        if recipe.objective == "supervised":
            return Supervised(encoder, features, recipe.area, classes)
        return {"simclr": SimCLR, "swav": SwAV, "dino": DINO}[recipe.objective](encoder, features, recipe.area)


def train(
    model: nn.Module, pixels: Tensor, labels: Tensor, recipe: Recipe, seed: int, work: Path | None = None
) -> float:
    """Train a learner in place, and return the CPU seconds of this process that it took.

    Args:
        model: of `learner`.
        pixels: uint8 `(N, 1 or 2, 3, S, S)`, see `views.versions`.
        labels: bool `(N, C)`.
        recipe: gives epochs and learning rate.
        seed: of the batches and of the views.
        work: file to save to after each epoch; where it holds this run, training goes on from it and ends the same.

    Raises:
        ValueError: a file of another run: another recipe, seed, first weights or data; or one that is damaged.
        FloatingPointError: the loss is no longer finite.
    """
    batch, model = 128, model.train().to(memory_format=torch.channels_last)
    steps = len(pixels) // batch * recipe.epochs
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    first, spent, losses = 0, 0.0, []
    run = vars(recipe) | {"seed": seed}
    if work:
        run |= {"data": resume.checksum([pixels, labels]), "first weights": resume.checksum(model.state_dict())}
    if state := resume.opened(work, run, recipe.epochs) if work else {}:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first, spent, losses = state["epoch"], state["spent"], state["losses"]
    began = time.process_time() - spent
    for epoch in (bar := tqdm(range(first, recipe.epochs), initial=first, total=recipe.epochs, desc="training")):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        total, kept = 0.0, 2 if epoch >= recipe.swapped * recipe.epochs else 1  # versions of an image
        order = torch.randperm(len(pixels), generator=generator)
        for rows in order[: len(order) // batch * batch].split(batch):
            loss = model(pixels[rows, :kept].float() / 255, labels[rows], generator)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            model.after_step()
            total += loss.item()
        losses.append(total / (len(pixels) // batch))
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {total} in epoch {epoch + 1}; lower the learning rate.")
        bar.set_postfix(loss=f"{losses[-1]:.4f}")
        if work:
            parts = {"model": model, "optimiser": optimiser, "schedule": schedule}
            spent = time.process_time() - began
            states = {name: part.state_dict() for name, part in parts.items()}
            resume.save(work, run, **states, epoch=epoch + 1, spent=spent, losses=losses)
    model.eval()
    return time.process_time() - began


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def pretrain(name: str, seed: int = 0, folder: Path = shipped.CHECKPOINTS) -> dict:
    """Train an encoder by its recipe, keep it in half precision beside its card, and return the card.

    A run that was broken off is kept in `WORK`, and goes on from there.

    Args:
        name: of `RECIPES`.
        seed: of weights, batches and views.
        folder: where the checkpoint and its card go.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the recipe's data are not at hand.
    """
    if name not in RECIPES:
        raise ValueError(f"name must be one of {', '.join(RECIPES)}; got {name!r}.")
    recipe = RECIPES[name]
    data = images(recipe, "train", recipe.examples, seed)
    if not data.name.startswith(recipe.data):
        raise FileNotFoundError(f"{name} is trained on {recipe.data}, which is not at hand: {data.provenance}")
    pixels, labels, provenance = [_bytes(data)], data.labels, data.provenance
    del data  # four times as large
    if recipe.swapped < 1:
        pixels.append(_bytes(images(recipe, "train", recipe.examples, seed, objects=0)))
    pixels = torch.stack(pixels, 1)
    model = learner(recipe, labels.shape[1], seed)
    seconds = train(model, pixels, labels, recipe, seed, WORK / f"{name}-{seed}.pt")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    weights = {key: value.half() if value.is_floating_point() else value
               for key, value in model.encoder.state_dict().items()}  # fmt: skip
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    kept = frozen(learner(replace(recipe, start=None), labels.shape[1], seed).encoder)
    scores = {"linear_probe_untrained": probe_scores(recipe, kept, seed)}
    if recipe.start:
        scores["linear_probe_start"] = probe_scores(recipe, shipped.load(recipe.start), seed)
    kept.load_state_dict(weights)
    card = {
        "name": name,
        "command": f"python -m lfx_utils.encoders.pretraining {name} --seed {seed}",
        **{key: value for key, value in vars(recipe).items() if value is not None},
        "seed": seed,
        "provenance": provenance,
        "device": "CPU, bfloat16",
        "cpu_seconds": round(seconds),
        "parameters": sum(parameter.numel() for parameter in kept.parameters()),
        "linear_probe": probe_scores(recipe, kept, seed),
        **scores,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": LICENCES[recipe.data],
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return card


def _bytes(data: Annotated) -> Tensor:
    return (data.images * 255).round().byte()


def probe_scores(recipe: Recipe, encoder: nn.Module, seed: int) -> dict[str, float]:
    """Probe on all the recipe's data, or on 4,000 scenes that were not trained on, with 2,000 for the test."""
    fresh = seed + 1 if recipe.data == "scenes" else seed
    most = (4_000, 2_000) if recipe.data == "scenes" else (None, None)
    parts = [images(recipe, split, count, fresh) for split, count in zip(("train", "test"), most)]
    found = (accuracy if recipe.data == "cifar10" else probe)(encoder, *parts)
    return {key: round(value, 4) for key, value in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """Train the encoder named on the command line and print its card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=shipped.CHECKPOINTS, help="where checkpoint and card go")
    print(json.dumps(pretrain(**vars(parser.parse_args(arguments))), indent=1))


if __name__ == "__main__":
    main()
