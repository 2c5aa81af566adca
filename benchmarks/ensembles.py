"""Time an ensemble of VAEs against training them one after another, in images per second of all models together.

    python -m benchmarks.ensembles                                  # CPU, one thread, a few minutes
    python -m benchmarks.ensembles --device cuda --models 30        # the papers' size, dSprites and MNIST

"Apart" is the loop one would write: a module, torch's Adam, one model after the other. "Together" is one batched pass
of all models, "in turn" one pass a model over the same stacks; `ensembles.fit` picks the former on a GPU and the latter
on a CPU. All see the same images and noise and end with the same weights. The ways take turns; the median of the
repeats counts, in the clock's seconds on a GPU and the processor's on a CPU (for the sake of busy machines).
"""

import argparse
import statistics
import time
from functools import partial

import torch

from lfx_utils.models import vae
from lfx_utils.training import ensembles

SIZES = (("MNIST, Table 8", 32, 3), ("dSprites, Table 9", 64, 6))


def apart(models, images, seeds, settings, latent, batch_size):
    """Train the models one after another for an epoch."""
    for model, seed, *setting in zip(models, seeds, *settings, strict=True):
        order, noise = (part.to(images.device) for part in ensembles.draws(seed, 0, len(images), latent))
        adam = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
        for rows, eps in zip(order.split(batch_size), noise.split(batch_size), strict=True):
            adam.zero_grad()
            vae.objective(model, images[rows], eps, *setting).backward()
            adam.step()


def stacked(models, images, seeds, settings, latent, batch_size, together):
    """Train the models by `ensembles.fit` for an epoch."""
    options = dict(seeds=seeds, settings=settings, noise=latent, epochs=1, batch_size=batch_size, together=together)
    ensembles.fit(models, vae.objective, images, **options)


def measure(title: str, size: int, latent: int, arguments) -> None:
    """Print images per second of each way, and the ratios to training apart."""
    device, count = torch.device(arguments.device), arguments.models
    seeds = list(range(count))
    settings = tuple(zip(*(vae.weights(("beta", "tc")[n % 2], (1, 5, 10)[n // 2 % 3]) for n in seeds), strict=True))
    images = torch.rand(arguments.steps * arguments.batch, 1, size, size, device=device).round()
    ways = {
        "apart": apart,
        "together": partial(stacked, together=True),
        "in turn": partial(stacked, together=False),
    }
    seconds, ends = {name: [] for name in ways}, {}
    for repeat in range(arguments.repeats + 1):
        names = list(ways)
        for name in names[repeat % 3 :] + names[: repeat % 3]:
            models = [model.to(device) for model in ensembles.build(partial(vae.VAE, size, latent), seeds)]
            clock = time.process_time if device.type == "cpu" else time.perf_counter
            torch.cuda.synchronize() if device.type == "cuda" else None
            start = clock()
            ways[name](models, images, seeds, settings, latent, arguments.batch)
            torch.cuda.synchronize() if device.type == "cuda" else None
            seconds[name] += [clock() - start] if repeat else []  # the first round warms up
            ends[name] = torch.stack([torch.nn.utils.parameters_to_vector(model.parameters()) for model in models])
    median = {name: statistics.median(values) for name, values in seconds.items()}
    row = f"{title}: {count} models, batch {arguments.batch}, {arguments.steps} steps |"
    for name, value in median.items():
        row += f" {name} {count * len(images) / value:,.0f} images/s ({median['apart'] / value:.2f} ×)"
    gaps = [(ends[name] - ends["apart"]).square().mean().sqrt().item() for name in ("together", "in turn")]
    print(f"{row} | weights differ by {gaps[0]:.0e} and {gaps[1]:.0e} (root mean square)", flush=True)


def main() -> None:
    """Read the arguments and measure both of the papers' sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else "one thread of a CPU"
    print(f"torch {torch.__version__}, {where}")
    for title, size, latent in SIZES:
        measure(title, size, latent, arguments)


if __name__ == "__main__":
    main()
