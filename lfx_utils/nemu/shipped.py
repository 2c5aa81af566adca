"""The decoders that this project trained for its own encoders, kept beside them in the folder `nem-u`.

    python -m lfx_utils.nemu.shipped scenes-supervised scenes        # trains them anew, minutes of one core

For each encoder and set of images: the published objective, the same with the distance as printed, with 1 − cos and
with noise injection, and the sweep over both prices.
"""

import argparse
import json
import time

import torch
from torch import nn

from lfx_utils import encoders
from lfx_utils.datasets import load_annotated
from lfx_utils.encoders.shipped import CHECKPOINTS
from lfx_utils.nemu.explainer import NEMU
from lfx_utils.nemu.files import load, save
from lfx_utils.nemu.objective import Objective, printed, statistics, unhalved
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
    others = {each.__name__: Objective(distance=each, fill=GREY) for each in (printed, unhalved)}
    others["noise"] = Objective(noise=statistics(images))
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


def card(name: str, data: str) -> dict:
    """Return the card of the shipped decoders: command, images, mean losses, mask sizes, seconds.

    Raises:
        FileNotFoundError: there are none.
    """
    return json.loads((FOLDER / f"{name}-on-{data}.json").read_text(encoding="utf-8"))


def trained(encoder: nn.Module, chosen: dict[str, Objective], images: torch.Tensor, **options) -> dict[str, NEMU]:
    """Return explainers of an encoder with these objectives, trained through its folded copy, which is sooner done.

    Args:
        encoder: from `encoders.load`.
        chosen: the objectives by name.
        images: `(N, C, H, W)`.
        options: those of `fit_together`.

    Raises:
        ValueError: the copy has other feature maps than the encoder.
    """
    swift = encoders.folded(encoder)
    pupils = {key: NEMU(swift, each, "thin") for key, each in chosen.items()}
    fit_together(list(pupils.values()), images, **options)
    found = {key: NEMU(encoder, each, "thin").build(images[:1]) for key, each in chosen.items()}
    for key, each in found.items():
        each.decoder.load_state_dict(pupils[key].decoder.state_dict())
        each.history = pupils[key].history
        if not torch.allclose(each.attribute(images[:2]), pupils[key].attribute(images[:2]), atol=1e-2):
            raise ValueError(f"encoder's folded copy reads {pupils[key].layers}, and it reads {each.layers}.")
    return found


def main(
    name: str, data: str, count: int, epochs: int, batch: int, most: int, size: int, seed: int, checkpoint: str | None
) -> None:
    """Train, save, and write the card."""
    about, encoder = encoders.card(name), encoders.load(name)
    options = {"shortcut": about["shortcut"]} if about.get("shortcut") else {}
    lessons = load_annotated(data, split="train", count=count, seed=seed + 1, size=size, with_masks=False, **options)
    began = time.process_time()
    chosen = dict(list(objectives(lessons.images).items())[:most])
    # Processors without bfloat16 compute in it many times slower than in single precision.
    half = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    together = {"epochs": epochs, "batch_size": batch, "seed": seed, "dtype": torch.bfloat16 if half else None}
    explainers = trained(encoder, chosen, lessons.images, checkpoint=checkpoint, **together)
    save(explainers, FOLDER / f"{name}-on-{data}.safetensors", half=True)
    sizes = f"--count {count} --epochs {epochs} --batch {batch} --most {most} --size {size} --seed {seed}"
    described = {
        "encoder": name,
        "encoder_sha256": about["sha256"],
        "command": f"python -m lfx_utils.nemu.shipped {name} {data} {sizes}",
        "provenance": lessons.provenance,
        "objectives": list(explainers),
        "mean_loss_by_epoch": [round(each / len(explainers), 4) for each in explainers[PUBLISHED].history.train],
        "mean_mask_size": {
            key: round(float(each.attribute(lessons.images[:64]).mean()), 3) for key, each in explainers.items()
        },
        "device": f"CPU, {'bfloat16' if half else 'float32'}",
        "cpu_seconds": round(time.process_time() - began),
    }
    (FOLDER / f"{name}-on-{data}.json").write_text(
        json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the encoder")
    parser.add_argument("data", help="scenes, voc or coco")
    for option, default in (("count", 640), ("epochs", 4), ("batch", 32), ("most", 12), ("size", 64), ("seed", 0)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--checkpoint", help="to resume from")
    main(**vars(parser.parse_args()))
