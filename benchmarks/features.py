"""Time LabelFree against raw Captum on the same scalar function, and integrated gradients against a loop of one's own.

    python -m benchmarks.features            # minutes of one core; `pip install lfxai` for the papers' package

"Captum + f(x)" is a g_x written by hand that has to compute f(x) once a call, as LabelFree does and any user must. The
loop takes the steps of a midpoint rule one after the other, which is how many rows at once this machine likes best.
"""

import argparse
import json
import warnings
from functools import partial

import torch
from captum.attr import FeatureAblation, GradientShap, IntegratedGradients, Saliency
from torch import Tensor, nn
from torchvision.models import resnet18

from benchmarks.record import alone, keep, race, watched
from lfx_utils.features import LabelFree
from lfx_utils.models.autoencoders import image_encoder

STEPS, SIDE = 50, 448


class Scalar(nn.Module):
    """What one would write without the package: the inner product with a representation that is passed in."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x, latent):
        return (self.encoder(x) * latent).sum(-1)


def loop(encoder: nn.Module, images: Tensor) -> Tensor:
    """Integrated gradients of ⟨f(x), f(·)⟩ from a black image, one step at a time."""
    with torch.no_grad():
        latent = encoder(images)
    total = torch.zeros_like(images)
    for share in ((torch.arange(STEPS) + 0.5) / STEPS).tolist():
        point = (share * images).requires_grad_()
        total += torch.autograd.grad((encoder(point) * latent).sum(), point)[0]
    return images * total / STEPS


def against_captum(encoder: nn.Module, images: Tensor) -> None:
    black = torch.zeros(1, 1, 28, 28)
    cell = torch.arange(28) // 7
    patches = (4 * cell[:, None] + cell)[None, None]
    for title, method, options in (
        ("Gradient SHAP, 5 samples", GradientShap, {"baselines": black, "n_samples": 5}),
        ("feature ablation, 16 patches", FeatureAblation, {"baselines": black, "feature_mask": patches}),
        ("saliency", Saliency, {}),
    ):
        raw = partial(method(Scalar(encoder)).attribute, images, **options)
        contenders = {
            "ours": partial(LabelFree(method, encoder).attribute, images, **options),
            "Captum + f(x)": lambda raw=raw: raw(additional_forward_args=encoder(images).detach()),
        }
        seconds, _ = race(contenders, repeats=7)
        keep(f"{title}, {len(images)} images, LF's MNIST encoder", seconds, packages=("captum",))


def integrated(encoder: nn.Module, images: Tensor) -> None:
    black = torch.zeros(1, 1, 28, 28)
    given = {"baselines": black, "n_steps": STEPS}
    raw = IntegratedGradients(Scalar(encoder)).attribute

    def captum(rows: int | None):
        return raw(images, additional_forward_args=encoder(images).detach(), internal_batch_size=rows, **given)

    chunks = {f"Captum, {rows} rows": partial(captum, rows) for rows in (64, 256, 1_024)}
    seconds, _ = race(
        {
            "ours": partial(LabelFree(IntegratedGradients, encoder).attribute, images, **given),
            "torch: a loop over the steps": partial(loop, encoder, images),
            "Captum + f(x)": partial(captum, None),
        }
        | chunks,
        repeats=5,
    )
    seconds["Captum + f(x), best of three batch sizes"] = min(seconds.pop(name) for name in chunks)
    keep(
        f"integrated gradients, {len(images)} images, {STEPS} steps, LF's MNIST encoder", seconds, packages=("captum",)
    )


def published(encoder: nn.Module, images: Tensor) -> None:
    def theirs():
        from lfxai.explanations.features import attribute_auxiliary

        loader = [(images, torch.zeros(len(images)))]
        return attribute_auxiliary(encoder, loader, images.device, IntegratedGradients(encoder), black)

    black = torch.zeros(1, 1, 28, 28)
    ours = partial(LabelFree(IntegratedGradients, encoder).attribute, images, black)
    seconds, _ = race({"ours": ours, "lfxai": theirs})
    keep(f"integrated gradients, {len(images)} images, against the papers' package", seconds, packages=("lfxai",))


def large(way: str) -> dict:
    """Seconds and MiB of integrated gradients of one large photograph, in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = resnet18(weights=None)
    encoder.fc = nn.Identity()
    encoder, image = encoder.eval(), torch.rand(1, 3, SIDE, SIDE)
    ours = partial(LabelFree(IntegratedGradients, encoder).attribute, image, torch.zeros_like(image), n_steps=STEPS)
    _, seconds, mib = watched(ours if way == "ours" else partial(loop, encoder, image))
    return {"seconds": seconds, "MiB": round(mib)}


def memory() -> None:
    found = {}
    for name, way in (("ours", "ours"), ("torch: a loop over the steps", "loop")):
        found[name] = alone("benchmarks.features", "--large", way)
        print(f"  {name:44} {found[name]}", flush=True)
    seconds, mib = ({name: each[what] for name, each in found.items()} for what in ("seconds", "MiB"))
    keep(f"integrated gradients of one photograph of {SIDE} × {SIDE}, ResNet-18", seconds, MiB=mib)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    encoder = image_encoder().eval()
    against_captum(encoder, torch.rand(64, 1, 28, 28))
    integrated(encoder, torch.rand(256, 1, 28, 28))
    published(encoder, torch.rand(64, 1, 28, 28))
    memory()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", choices=("ours", "loop"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.large:
        print(json.dumps(large(asked.large)))
    else:
        main()
