"""The decoders that this project trained for its own encoders, kept beside them in the folder `nem-u`.

    python -m lfx_utils.nemu.shipped scenes-supervised scenes        # trains them anew, minutes of one core

For each encoder and set of images: the published objective, with noise injection and with distances as printed in its
place, and the sweep over both prices.
"""

import argparse
import json
import time

import torch

from lfx_utils import encoders
from lfx_utils.datasets import load_annotated
from lfx_utils.encoders.shipped import CHECKPOINTS
from lfx_utils.nemu.explainer import NEMU
from lfx_utils.nemu.files import load, save
from lfx_utils.nemu.objective import Objective, printed, statistics
from lfx_utils.nemu.training import fit_together

GREY = 0.5  # which this project's encoders normalise to zero
FOLDER = CHECKPOINTS / "nem-u"
SWEEP = {
    f"λ1={preserve:g} λ2={sparsity:g}": (preserve, sparsity)
    for preserve in (1.0, 1.5, 2.0)
    for sparsity in (0.5, 1.0, 1.5)
}
PUBLISHED = "λ1=1.5 λ2=1"


def objectives(images: torch.Tensor) -> dict[str, Objective]:
    """Return the objectives by name, the published one first; noise has the mean and deviation of these images."""
    sweep = {name: Objective(*prices, fill=GREY) for name, prices in SWEEP.items()}
    others = {"noise": Objective(noise=statistics(images)), "printed": Objective(distance=printed, fill=GREY)}
    return {PUBLISHED: sweep[PUBLISHED]} | others | sweep


def shipped(name: str, data: str) -> dict[str, NEMU]:
    """Return the shipped explainers of the encoder of this name, trained on this set of images, by objective.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they belong to other weights than the encoder now has.

    >>> list(shipped("scenes-supervised", "scenes"))[0]
    'λ1=1.5 λ2=1'
    """
    path = FOLDER / f"{name}-on-{data}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"No decoders of {name!r} on {data!r} are shipped; run python -m lfx_utils.nemu.shipped {name} {data}."
        )
    return load(path, encoders.load(name))


def main(name: str, data: str, count: int, epochs: int, batch: int, most: int, seed: int) -> None:
    """Train, save, and write the card."""
    about, encoder = encoders.card(name), encoders.load(name)
    options = {"shortcut": about["shortcut"]} if about.get("shortcut") else {}
    lessons = load_annotated(data, split="train", count=count, seed=seed + 1, size=64, with_masks=False, **options)
    began = time.process_time()
    chosen = dict(list(objectives(lessons.images).items())[:most])
    explainers = {key: NEMU(encoder, each, "thin") for key, each in chosen.items()}
    together = {"epochs": epochs, "batch_size": batch, "seed": seed, "dtype": torch.bfloat16}
    fit_together(list(explainers.values()), lessons.images, **together)
    save(explainers, FOLDER / f"{name}-on-{data}.safetensors", half=True)
    sizes = f"--count {count} --epochs {epochs} --batch {batch} --most {most} --seed {seed}"
    card = {
        "encoder": name,
        "encoder_sha256": about["sha256"],
        "command": f"python -m lfx_utils.nemu.shipped {name} {data} {sizes}",
        "provenance": lessons.provenance,
        "objectives": list(explainers),
        "mean_loss_by_epoch": [round(each / len(explainers), 4) for each in explainers[PUBLISHED].history.train],
        "device": "CPU, bfloat16",
        "cpu_seconds": round(time.process_time() - began),
    }
    (FOLDER / f"{name}-on-{data}.json").write_text(
        json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the encoder")
    parser.add_argument("data", help="scenes, voc or coco")
    for option, default in (("count", 640), ("epochs", 4), ("batch", 32), ("most", 11), ("seed", 0)):
        parser.add_argument(f"--{option}", type=int, default=default)
    main(**vars(parser.parse_args()))
