"""Time RELAX against what bounds it, a plain loop and the papers' package; its own share; memory on large inputs.

    python -m benchmarks.relax            # minutes of one core; `pip install relax-xai==0.0.5` for the comparison

At equal masks, all explain one photograph of 224 × 224 pixels with a ResNet-18 of random weights. The bound is the
encoder alone on as many rows, its batch norms folded, channels last. At equal error, runs with different seeds tell how
far an estimate lies from the mean of the others; errors fall with the square root of the masks, which gives how many
masks reach the error of Eq. 12 at 3,000. The package runs without gradients, which it leaves to the user.
"""

import argparse
import json
import warnings
from collections.abc import Callable

import torch
from skimage import data
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from benchmarks.record import alone, keep, race, watched
from lfx_utils import encoders
from lfx_utils.relax import RELAX, Cells

PAPER, ROWS = 3_000, 32
LARGE = {"1,024 × 1,024 pixels": (3, 1_024, 1_024), "512 × 512 pixels": (3, 512, 512)}
LONG = {"5,000 steps": (5_000, 3), "1,250 steps": (1_250, 3)}


def photograph() -> Tensor:
    """A photograph that scikit-image carries, cut and scaled as ImageNet's are."""
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    pixels = torch.tensor(data.astronaut(), dtype=torch.float32).permute(2, 0, 1)[None] / 255
    return (functional.interpolate(pixels, size=224, mode="bilinear", antialias=True) - mean) / std


def network() -> nn.Module:
    torch.manual_seed(0)
    encoder = resnet18(weights=None)
    encoder.fc = nn.Identity()
    return encoder.eval()


def bare(encoder: nn.Module, count: int) -> Callable:
    """The encoder alone on so many rows: less than this no method can take that asks it for each mask."""
    images = torch.rand(ROWS, 3, 224, 224).to(next(encoder.parameters()).dtype)
    images = images.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode():
        for _ in range(count // ROWS):
            encoder(images)

    return encode


@torch.inference_mode()
def plain(encoder: nn.Module, images: Tensor, count: int, dtype=torch.float32) -> Tensor:
    """Eq. 12 and the uncertainty of Algorithm 1 in a loop over masks that all images share."""
    generator, side, cell = torch.Generator().manual_seed(0), images.shape[-1], images.shape[-1] // 7

    def encode(rows):
        return functional.normalize(encoder(rows.to(dtype).contiguous(memory_format=torch.channels_last)).float())

    own = encode(images)
    weighted, squared = torch.zeros(2, len(images), side * side)
    seen = torch.zeros(side * side)
    each = max(1, ROWS // len(images))
    for few in torch.arange(count).split(each):
        coarse = (torch.rand(len(few), 1, 8, 8, generator=generator) < 0.5).float()
        fine = functional.interpolate(coarse, size=8 * cell, mode="bilinear")[:, 0]
        corners = torch.randint(cell, (len(few), 2), generator=generator).tolist()
        masks = torch.stack([m[a : a + side, b : b + side] for m, (a, b) in zip(fine, corners, strict=True)])
        rows = (masks[:, None, None] * images).flatten(0, 1)
        similarity = (encode(rows).view(len(few), len(images), -1) * own).sum(-1)
        flat = masks.flatten(1)
        weighted += similarity.T @ flat
        squared += similarity.square().T @ flat
        seen += flat.sum(0)
    importance = weighted / seen
    return torch.stack([importance, (squared - seen * importance.square()) / (seen - 1)])


def package(encoder: nn.Module, image: Tensor, count: int) -> Callable:
    @torch.no_grad()
    def explain():
        from relax_xai.relax import RELAX as Published

        Published(image, encoder, batch_size=ROWS, num_batches=count // ROWS).forward()

    return explain


def equal_masks(count: int) -> None:
    encoder, image = network(), photograph()
    swift = encoders.folded(encoder)
    ours = RELAX(swift, channels_last=True)
    options = {"n_masks": count, "internal_batch_size": ROWS, "return_uncertainty": True}
    seconds, _ = race(
        {
            "ours, norms folded, float32": lambda: ours.attribute(image, **options),
            "the encoder alone, norms folded": bare(swift, count),
            "torch: plain loop, norms folded": lambda: plain(swift, image, count),
            "torch: plain loop": lambda: plain(encoder, image, count),
            "relax-xai": package(encoder, image, count),
        },
        repeats=7,
    )
    keep(f"RELAX, {count} masks of one photograph, ResNet-18, float32", seconds, packages=("relax-xai",))
    half = encoders.folded(encoder).to(torch.bfloat16)
    cast = RELAX(nn.Sequential(_Cast(), half).eval(), channels_last=True)
    seconds, _ = race(
        {
            "ours, norms folded, bfloat16": lambda: cast.attribute(image, **options | {"n_masks": ROWS}),
            "the encoder alone, norms folded": bare(half, ROWS),
            "torch: plain loop, norms folded": lambda: plain(half, image, ROWS, torch.bfloat16),
        },
        repeats=2,
    )
    keep(f"RELAX, {ROWS} masks of one photograph, ResNet-18, bfloat16", seconds)


class _Cast(nn.Module):
    def forward(self, images):
        return images.to(torch.bfloat16)


def equal_error(count: int, runs: int) -> None:
    """How many masks, and seconds, the control variate needs for the error of Eq. 12 at 3,000 masks."""
    encoder, image = network(), photograph()
    ours = RELAX(encoders.folded(encoder), Cells(7, 0.5, released=True), channels_last=True)
    options = {"n_masks": count, "internal_batch_size": ROWS}
    seen = [ours.evidence(image, seed=seed, **options) for seed in range(runs)]
    error = {name: deviations(torch.stack([run.importance(name) for run in seen])) for name in ("ratio", "control")}
    share = (error["control"] / error["ratio"]) ** 2
    quick = {"estimator": "control", **options}
    seconds, _ = race(
        {
            "ours": lambda: ours.attribute(image, **quick),
            "torch: plain loop": lambda: plain(encoder, image, count),
            "relax-xai": package(encoder, image, count),
        },
        repeats=2,
    )
    scaled = {name: value * PAPER / count * (share if name == "ours" else 1) for name, value in seconds.items()}
    job = "RELAX, one photograph, ResNet-18, at the error of 3,000 masks by Eq. 12, extrapolated"
    keep(job, scaled, packages=("relax-xai",), **{"masks that the control variate needs": round(PAPER * share)})


def deviations(maps: Tensor) -> float:
    """The mean absolute error of one of R independent maps `(R, …)`, from its distance to the mean of the others."""
    runs = len(maps)
    others = (maps.sum(0) - maps) / (runs - 1)
    return ((maps - others).abs().mean() * ((runs - 1) / runs) ** 0.5).item()


class Trivial(nn.Module):
    """An encoder that costs nothing beside the masks: the sums of 16 pixels, spread over 64 numbers."""

    def forward(self, images):
        few = images[:, :1, ::56, ::56].flatten(1)
        return functional.relu(few.sum(1, keepdim=True) + torch.arange(1.0, 65.0))


def own_share() -> None:
    encoder, images = Trivial().eval(), torch.rand(4, 3, 224, 224)
    ours = RELAX(encoder)
    seconds, _ = race(
        {
            "ours": lambda: ours.attribute(images, n_masks=512, return_uncertainty=True),
            "torch: plain loop": lambda: plain(encoder, images, 512),
        },
        repeats=9,
    )
    keep("RELAX without an encoder, 512 masks × 4 photographs", seconds)


class Means(nn.Module):
    """An encoder that is linear in the size of its input: sums over its places."""

    def forward(self, inputs):
        places = inputs.flatten(2).sum(2) if inputs.dim() == 4 else inputs.sum(1)
        return functional.pad(places, (0, 1), value=1.0)


def large(shape: tuple[int, ...]) -> dict:
    """Seconds and MiB of 64 masks of one input of this shape, in a process of its own."""
    torch.set_num_threads(1)
    ours = RELAX(Means().eval(), dims=(1,) if len(shape) == 2 else (2, 3))
    inputs = torch.rand(1, *shape)
    _, seconds, mib = watched(lambda: ours.attribute(inputs, n_masks=64))
    return {"seconds": seconds, "MiB": round(mib)}


def growth() -> None:
    found = {}
    for name, shape in (LARGE | LONG).items():
        found[name] = alone("benchmarks.relax", "--large", *shape)
        print(f"  {name:24} {found[name]}", flush=True)
    for sizes in (LARGE, LONG):
        names = list(sizes)
        seconds = {f"ours, {name}": found[name]["seconds"] for name in names}
        keep(f"RELAX, 64 masks of one input of {names[0]}", seconds, MiB={name: found[name]["MiB"] for name in names})


def main(masks: int, runs: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    own_share()
    growth()
    equal_masks(masks)
    equal_error(masks, runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--large", type=int, nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.large:
        print(json.dumps(large(tuple(asked.large))))
    else:
        main(asked.masks, asked.runs)
