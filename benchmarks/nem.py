"""NU's Table 1 in one run: seconds for one explanation by RELAX, IG, Gradient SHAP, Saliency and NEM-U.

    python -m benchmarks.nem                              # the small encoder, 64 × 64; under a minute of an idle core
    python -m benchmarks.nem --encoder resnet50 --masks 100        # the paper's encoder and size, random weights

"NEM-U, exported" runs in ONNX Runtime, one image at a time.
"Published RELAX" is the package `relax-xai` with its batches of 100 masks, where it is installed; "RELAX" is ours.

Time does not depend on what the weights are, so NEM-U's decoder is not trained here. All are charged the processor's
seconds rather than the clock's, for the sake of busy machines, and run on one thread; contenders take turns. RELAX's
time for 3,000 masks is that for `--masks` of them times the quotient, since every mask costs the same. "Fast RELAX"
takes a fifth of the masks with the control variate (see `benchmarks.relax`) in half precision.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from functools import partial

import onnxruntime
import torch
from captum.attr import GradientShap, IntegratedGradients, Saliency
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from benchmarks.record import keep, race
from lfx_utils import LabelFree, encoders
from lfx_utils.encoders import published
from lfx_utils.nemu import NEMU
from lfx_utils.relax import RELAX, Cells

PAPER = {"RELAX": 2.048, "IG": 0.072, "Gradient SHAP": 0.011, "Saliency": 0.007, "NEM-U": 0.002}
MASKS = 3_000


def contenders(encoder: nn.Module, decoder: str, images: Tensor, masks: int) -> dict:
    """Return what each method does with a batch, by how much to multiply its seconds, and whether it takes batches."""
    grey = torch.full_like(images[:1], 0.5)
    explainer = NEMU(encoder, decoder=decoder).build(images[:1])
    bounds = {"n_masks": masks, "internal_batch_size": 64}
    plain = RELAX(encoder, Cells(7), fill=0.5, channels_last=True)
    fast = RELAX(encoder, Cells(7), fill=0.5, channels_last=True, dtype=torch.bfloat16)
    ig = partial(LabelFree(IntegratedGradients, encoder).attribute, baselines=grey, n_steps=50, internal_batch_size=100)
    racers = {
        "encoder alone": (torch.no_grad()(encoder), 1, True),
        "NEM-U": (torch.no_grad()(explainer), 1, True),
        "Saliency": (LabelFree(Saliency, encoder).attribute, 1, True),
        "Gradient SHAP": (partial(LabelFree(GradientShap, encoder).attribute, baselines=grey, n_samples=5), 1, True),
        "IG": (ig, 1, False),
        "fast RELAX": (partial(fast.attribute, estimator="control", **bounds), MASKS / 5 / masks, False),
        "RELAX": (partial(plain.attribute, **bounds), MASKS / masks, False),
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = f"{folder}/nem-u.onnx"
        torch.onnx.export(explainer, (images[:1],), file, dynamo=True, verbose=False)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    (asked,) = session.get_inputs()
    racers["NEM-U, exported"] = (lambda image: session.run(None, {asked.name: image.numpy()}), 1, False)
    try:
        from relax_xai.relax import RELAX as Published
    except ImportError:
        print("relax-xai is not installed: no published RELAX.")
        return racers

    @torch.no_grad()
    def published(image: Tensor):
        Published(image, encoder, batch_size=100, num_batches=max(masks // 100, 1)).forward()

    return racers | {"published RELAX": (published, MASKS / (100 * max(masks // 100, 1)), False)}


def main(encoder: str, masks: int, batch: int, repeats: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    small = encoder == "small"
    model = encoders.load("scenes-supervised") if small else encoders.frozen(published.imagenet_resnet50())
    images = torch.rand(batch, 3, *(2 * [64 if small else 224])).contiguous(memory_format=torch.channels_last)
    racers = contenders(model, "thin" if small else "standard", images, masks)
    seconds: dict = {}
    for turn in range(-1, repeats):  # the first turn warms up
        for method, (function, factor, batches) in racers.items():
            for size in (1, batch) if batches else (1,):
                start = time.process_time()
                function(images[:size])
                if turn >= 0:
                    seconds.setdefault((method, size), []).append(factor * (time.process_time() - start) / size)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    best = {method: min(median[method, 1], median.get((method, batch), torch.inf)) for method in racers}
    print(f"{'ms an image':>16}  {'alone':>9}  {'best batch':>10}  {'× NEM-U':>8}  {'× encoder':>9}  {'paper, ms':>9}")
    for method in racers:
        paper = f"{1_000 * PAPER[method]:9.0f}" if method in PAPER else f"{'':>9}"
        ratios = best[method] / best["NEM-U"], best[method] / best["encoder alone"]
        cells = f"{1_000 * median[method, 1]:9.2f}  {1_000 * best[method]:10.2f}  {ratios[0]:8.2f}  {ratios[1]:9.2f}"
        print(f"{method:>16}  {cells}  {paper}")


def decoders(batch: int = 4) -> None:
    """The forward pass with either decoder beside the encoder alone, at 224 × 224 pixels."""
    images = torch.rand(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    lite, residual = encoders.load("efficientnet-lite0"), resnet18(weights=None)
    residual.fc = nn.Identity()
    for name, encoder in (("EfficientNet-Lite0", lite), ("ResNet-18", encoders.frozen(residual))):
        encoder = encoder.to(memory_format=torch.channels_last)
        for kind in ("thin", "standard"):
            explainer = NEMU(encoder, decoder=kind).build(images[:1])
            racers = {"ours": explainer, "the encoder alone": encoder}
            racers = {who: partial(torch.no_grad()(module), images) for who, module in racers.items()}
            operations = {}
            for who, forward in racers.items():
                with FlopCounterMode(display=False) as counter:
                    forward()
                operations[who] = counter.get_total_flops() / batch / 1e9
            seconds, _ = race(racers, repeats=5)
            facts = {"billions of operations a photograph": operations}
            keep(f"NEM-U forward, {kind} decoder, {name}, {batch} photographs", seconds, **facts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=("small", "resnet50"), default="small")
    for option, default in (("masks", 600), ("batch", 32), ("repeats", 7)):
        parser.add_argument(f"--{option}", type=int, default=default)
    main(**vars(parser.parse_args()))
    decoders()
