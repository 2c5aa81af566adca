"""Say what each published setting would take here: one training step timed, times the steps of all trainings.

    python -m benchmarks.settings         # some minutes on an idle core; writes data/benchmarks/settings.json

Each step is that of the printed architecture on images of the printed size, forward, backward and Adam, on one thread.
A step on the printed batch is what so many steps on a smaller one take where the batch is large. What comes after the
training (the maps, the scores) is not counted, so that each time is a lower bound; RELAX's passes are the whole work.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks.record import FILE, machine
from lfx_utils import encoders
from lfx_utils.models import autoencoders, capsules, sequences, simclr, svae, svae_parts, vae

REPEATS = 3


def step(model: nn.Module, loss: Callable[[], Tensor]) -> float:
    """Return the processor's seconds of one training step, the least of several."""
    adam = torch.optim.Adam(model.parameters())

    def once():
        adam.zero_grad()
        loss().backward()
        adam.step()

    return least(once)


def least(function: Callable[[], object]) -> float:
    """Return the least of the processor's seconds of several calls, the first left out."""
    function()
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        function()
        found.append(time.process_time() - began)
    return min(found)


def rebuilding(model: nn.Module, *shape: int) -> float:
    """A step of an autoencoder."""
    inputs = torch.rand(shape)
    return step(model, lambda: mse_loss(model(inputs), inputs))


def variational(size: int, latent: int, batch: int) -> float:
    """A step of a VAE of LF Table 8 or 9."""
    model, images, noise = vae.VAE(size, latent), torch.rand(batch, 1, size, size), torch.randn(batch, latent)
    return step(model, lambda: vae.objective(model, images, noise, 1.0, 1.0))


def contrasting(batch: int, printed: int) -> float:
    """A step of SimCLR with a ResNet-18, taken on a smaller batch."""
    model = simclr.projected(simclr.cifar_resnet18(), 512)
    first, second = torch.rand(2, batch, 3, 32, 32)
    return step(model, lambda: simclr.nt_xent(model(first), model(second))) * printed / batch


def supervised(parts: Callable, batch: int, *shape: int) -> float:
    """A step of Table 1's models, the mean over four settings of a supervised VAE and two of M2."""
    images, labels = torch.rand(batch, *shape), torch.arange(batch) % 10
    found = []
    for model, mix in ((svae.SVAE(*parts(shape, 15), 10), (0.9,)), (svae.SemiVAE(*parts(shape, 15), 10), ())):
        noise = torch.randn(batch, model.latent)
        found.append(step(model, lambda m=model, n=noise, x=mix: -m.terms(images, labels, n).bound(6_000, *x).mean()))
    return (4 * found[0] + 2 * found[1]) / 6


def capsular(batch: int) -> float:
    """A step of the stacked capsules of 24 parts."""
    model, images = capsules.StackedCapsules(), torch.rand(batch, 1, 28, 28)
    return step(model, lambda: model.loss(images))


@torch.no_grad()
def masked(batch: int = 8) -> float:
    """A masked photograph's pass through EfficientNet-Lite0 at 224 × 224 pixels."""
    encoder, images = encoders.folded(encoders.load("efficientnet-lite0")), torch.rand(batch, 3, 224, 224)
    images = images.contiguous(memory_format=torch.channels_last)
    return least(lambda: encoder(images)) / batch


# What is trained, on what; seconds a step; steps a training; trainings.
ITEMS = {
    "SV Table 1, CIFAR-10: six settings, 3 trainings each, 30 epochs of 50,000 images": (
        lambda: supervised(svae_parts.convolutional, 100, 3, 32, 32), 30 * 500, 18,
    ),
    "SV Table 1, MNIST: six settings, 5 trainings each, 30 epochs of 60,000 images": (
        lambda: supervised(svae_parts.dense, 100, 1, 28, 28), 30 * 600, 30,
    ),
    "LF Fig. 2b, ECG5000: 64 units, 5 trainings, 150 epochs of 4,000 beats": (
        lambda: rebuilding(sequences.ecg_autoencoder(64), 50, 140, 1), 150 * 80, 5,
    ),
    "LF Fig. 3b, ECG5000: 32 units, 5 trainings, 150 epochs of 4,000 beats": (
        lambda: rebuilding(sequences.ecg_autoencoder(32), 50, 140, 1), 150 * 80, 5,
    ),
    "LF Fig. 7 (ROAR): two autoencoders, 4 shares, 4 methods, two pairings of masks, 5 seeds, 10 epochs of 60,000": (
        lambda: rebuilding(autoencoders.mnist_autoencoder(), 100, 1, 28, 28), 10 * 600, 2 * 4 * 4 * 2 * 5,
    ),
    "LF Figs. 5-8, RE Table 4, MNIST 32 x 32: 2 types, 3 betas, 3 trainings, 30 epochs of 60,000": (
        lambda: variational(32, 3, 300), 30 * 200, 18,
    ),
    "LF Figs. 5-8, RE Table 4, dSprites 64 x 64: 2 types, 3 betas, 3 trainings, 30 epochs of 60,000": (
        lambda: variational(64, 6, 300), 30 * 200, 18,
    ),
    "RELAX Fig. D3 on 50 photographs, two runs of 3,000 masks each": (masked, 50 * 2 * 3_000, 1),
    "LF Figs. 2c, 3c, RE Figs. 6, 7: SimCLR with ResNet-18, 3 trainings, 100 epochs of CIFAR-10": (
        lambda: contrasting(16, 512), 100 * 98, 3,
    ),
    "RE Tables 1, 2: capsules of 24 parts, 5 trainings, 100 epochs of 60,000": (
        lambda: capsular(32), 100 * 1_875, 5,
    ),
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for item, (measure, steps, trainings) in ITEMS.items():
        seconds = measure()
        hours = seconds * steps * trainings / 3_600
        rows.append({"setting": item, "step": seconds, "steps": steps, "trainings": trainings, "hours": hours})
        print(f"{hours:9.1f} h  {item}", flush=True)
    about = {"machine": machine(), "threads": 1, "torch": torch.__version__}
    about |= {"date": datetime.now(UTC).date().isoformat(), "rows": rows}
    text = json.dumps(about, indent=1, ensure_ascii=False)
    FILE.with_name("settings.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
