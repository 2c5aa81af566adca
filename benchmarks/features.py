"""Time LabelFree against raw Captum on the same scalar function, and against the papers' package where installed.

    python -m benchmarks.features            # well under a minute on an idle core

The contenders take turns, each repeat beginning with another one, and are charged the processor's seconds rather than
the clock's, for the sake of busy machines. The table gives each one's median seconds and LabelFree's median ratio to
it. "Captum" is a g_x written by hand that gets f(x) for nothing; "Captum + f(x)" has to compute it once a call, as
LabelFree does and any user must.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from captum.attr import FeatureAblation, GradientShap, IntegratedGradients, Saliency
from torch import nn

from lfx_utils.features import LabelFree
from lfx_utils.models.autoencoders import image_encoder

IMAGES, REPEATS = 64, 15


class Scalar(nn.Module):
    """What one would write without the package: the inner product with a representation that is passed in."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x, latent):
        return (self.encoder(x) * latent).sum(-1)


def race(title: str, contenders: dict[str, Callable[[], object]], repeats: int = REPEATS) -> None:
    """Print the median seconds of each contender, and of the first one's ratio to it, after one untimed run."""
    names, times = list(contenders), {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            start = time.process_time()
            contenders[name]()
            times[name].append(time.process_time() - start)
    first = times[names[0]][1:]
    row = f"{title:36} {names[0]} {statistics.median(first):.4f} s"
    for name in names[1:]:
        others = times[name][1:]
        ratio = statistics.median(a / b for a, b in zip(first, others, strict=True))
        row += f" | {name} {statistics.median(others):.4f} s, ratio {ratio:.3f}"
    print(row, flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    encoder = image_encoder().eval()
    x, reference = torch.rand(IMAGES, 1, 28, 28), torch.zeros(1, 1, 28, 28)
    cell = torch.arange(28) // 7
    patches = (4 * cell[:, None] + cell)[None, None]

    @torch.no_grad()
    def represent():
        return encoder(x)

    print(f"{IMAGES} images through the encoder of LF Table 5, {REPEATS} repeats, one thread")
    for title, method, options in (
        ("integrated gradients, 50 steps", IntegratedGradients, {"baselines": reference, "n_steps": 50}),
        ("gradient SHAP, 5 samples", GradientShap, {"baselines": reference, "n_samples": 5}),
        ("feature ablation, 16 patches", FeatureAblation, {"baselines": reference, "feature_mask": patches}),
        ("saliency", Saliency, {}),
    ):
        ours = partial(LabelFree(method, encoder).attribute, x, **options)
        raw, latent = partial(method(Scalar(encoder)).attribute, x, **options), represent()
        contenders = {
            "LabelFree": ours,
            "Captum": partial(raw, additional_forward_args=latent),
            "Captum + f(x)": lambda raw=raw: raw(additional_forward_args=represent()),
        }
        race(title, contenders)

    whole = partial(LabelFree(IntegratedGradients, encoder).attribute, x, reference)
    race("integrated gradients", {"256 rows at once": partial(whole, internal_batch_size=256), "3200": whole}, 5)

    try:
        from lfxai.explanations.features import attribute_auxiliary
    except ImportError:
        print("lfxai, the papers' package, is not installed: left out")
        return
    loader, captum = [(x, torch.zeros(IMAGES))], IntegratedGradients(encoder)
    published = partial(attribute_auxiliary, encoder, loader, x.device, captum, reference)
    race("integrated gradients", {"LabelFree": whole, "lfxai": published}, 5)


if __name__ == "__main__":
    main()
