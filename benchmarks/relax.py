"""Time RELAX against the papers' package on one 224×224 image and ResNet-18, at equal masks and at equal error.

    python -m benchmarks.relax                   # about a minute of one core; needs `pip install relax-xai` to compare
    python -m benchmarks.relax --masks 3000 --runs 10 --threads 2          # in full, some 20 minutes

At equal masks, seconds a mask are measured on few masks and multiplied by 3,000, since every mask costs the same. At
equal error, several runs with different seeds tell how far an estimate lies from the mean of the others; errors fall
with the square root of the masks, which gives how many masks reach the package's error at 3,000. Masks are the
package's, whose map ours equals on the same ones. All are charged the processor's seconds rather than the clock's, for
the sake of busy machines. The encoder has random weights unless `--weights` names a state dict; how much the control
variate saves depends on the encoder. The package runs without gradients, which it leaves to the user; with them it
keeps every activation of every mask.
"""

import argparse
import time
import warnings
from functools import reduce
from operator import add

import torch
from skimage import data
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from lfx_utils.relax import RELAX, Cells

PAPER = 3_000
MEAN, STD = (torch.tensor(each).view(1, 3, 1, 1) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def image() -> Tensor:
    """A photograph that scikit-image carries, cut and scaled as ImageNet's are."""
    photograph = torch.tensor(data.astronaut(), dtype=torch.float32).permute(2, 0, 1)[None] / 255
    return (functional.interpolate(photograph, size=224, mode="bilinear", antialias=True) - MEAN) / STD


def timed(function):
    """A function's result and the processor's seconds it took."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def package(encoder: nn.Module, x: Tensor, batch: int) -> float | None:
    """Seconds that the package needs for one mask, from two batches; None where it is not installed."""
    try:
        from relax_xai.relax import RELAX as Published
    except ImportError as error:
        print(f"No comparison: the papers' package cannot be imported ({error}); pip install relax-xai==0.0.5.")
        return None
    with torch.no_grad():
        explainer = Published(x, encoder, batch_size=batch, num_batches=1)
        seconds = min(timed(explainer.forward)[1] for _ in range(2))
    return seconds / batch


def deviations(maps: Tensor) -> float:
    """The mean absolute error of one of R independent maps `(R, …)`, from its distance to the mean of the others."""
    runs = len(maps)
    others = (maps.sum(0) - maps) / (runs - 1)
    return ((maps - others).abs().mean() * ((runs - 1) / runs) ** 0.5).item()


def main(masks: int, runs: int, threads: int, batch: int, weights: str | None) -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    encoder = resnet18(weights=None)
    if weights:
        encoder.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    encoder.fc = nn.Identity()
    encoder, x = encoder.eval(), image()

    options = {"n_masks": masks, "internal_batch_size": batch}
    cells = Cells(7, 0.5, released=True)
    theirs = package(encoder, x, 100)
    exact, seconds = timed(lambda: RELAX(encoder, cells).evidence(x, **options))
    cost = {"float32": seconds / masks}
    _, seconds = timed(lambda: RELAX(encoder, cells, channels_last=True).evidence(x, **options))
    cost["float32, channels last"] = seconds / masks
    fast = RELAX(encoder, cells, dtype=torch.bfloat16, channels_last=True)
    seen, seconds = zip(*(timed(lambda s=s: fast.evidence(x, seed=s, **options)) for s in range(runs)), strict=True)
    cost["bfloat16, channels last"] = best = min(seconds) / masks

    for estimator in ("ratio", "control"):
        pair = torch.stack([run.importance(estimator).flatten() for run in (exact, seen[0])])
        print(
            f"bfloat16 against float32, same {masks} masks, {estimator}: correlation {torch.corrcoef(pair)[0, 1]:.5f}"
        )
    print(f"\nat equal masks, extrapolated from {masks} to {PAPER:,}")
    if theirs:
        print(f"  {'relax-xai':24} {theirs * PAPER:7.1f} s")
    for name, each in cost.items():
        ratio = f", {theirs / each:.2f} × faster" if theirs else ""
        print(f"  {name:24} {each * PAPER:7.1f} s{ratio}")

    print(f"\nat equal error, from {runs} runs of {masks} masks")
    error = {name: deviations(torch.stack([run.importance(name) for run in seen])) for name in ("ratio", "control")}
    needed = PAPER * (error["control"] / error["ratio"]) ** 2
    at = (masks / PAPER) ** 0.5
    plain, controlled = (error[name] * at for name in ("ratio", "control"))
    print(f"  mean absolute error at {PAPER:,} masks: Eq. 12 {plain:.2e}, control {controlled:.2e}")
    print(f"  the control variate saves {PAPER / needed:.2f} × the masks: {needed:.0f} in place of {PAPER:,}")
    if theirs:
        slow, quick = theirs * PAPER, best * needed
        print(f"  relax-xai {slow:.1f} s, control {quick:.1f} s: {slow / quick:.1f} × faster")
    total = reduce(add, seen)
    print(f"  bound on the largest error of any pixel after {total.count} masks: {total.error(width=1.0):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--masks", type=int, default=192)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--weights")
    main(**vars(parser.parse_args()))
