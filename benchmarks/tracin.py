"""TracIn on LF's MNIST encoder, and on a ResNet-18 of 11 million parameters: time, memory, the error of projections.

python -m benchmarks.tracin [--train 48 --test 24]      # minutes of one core; each run is a process of its own
"""

import argparse
import json

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torchvision.models import resnet18

from benchmarks.record import alone, keep, race, watched
from lfx_utils.examples import tracin
from lfx_utils.models.autoencoders import mnist_autoencoder

WAYS = {
    "ours, memory=512": {"memory": 512},
    "ours, projected to 256 numbers a layer": {"projection": 256},
    "ours, projected to 4,096 numbers a layer": {"projection": 4_096},
    "torch: vmap(grad), the test side held": None,
}


def plain(network, test: Tensor, train: Tensor) -> Tensor:
    weights = {name: tensor.detach() for name, tensor in network.named_parameters()}
    rest = dict(network.named_buffers())

    def value(weights, x):
        return functional_call(network, (weights, rest), (x[None],)).square().mean()

    def rows(images):
        return torch.cat([each.flatten(1) for each in vmap(grad(value), (None, 0))(weights, images).values()], 1)

    held = torch.cat([rows(part) for part in test.split(8)])
    return torch.cat([held @ rows(part).T for part in train.split(8)], 1)


def run(way: str, train: int, tests: int) -> dict:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = resnet18(weights=None, num_classes=128).eval()
    images = torch.rand(tests + train, 3, 32, 32)
    test, train = images[:tests], images[tests:]
    state = [(network.state_dict(), 1.0)]

    def scored():
        if WAYS[way] is None:
            return plain(network, test, train)
        return tracin(network, lambda model, x: model(x).square().mean(), state, test, train, part="", **WAYS[way])

    scores, seconds, mib = watched(scored)
    return {"seconds": seconds, "MiB": round(mib), "scores": scores.tolist()}


def factors(model: nn.Module, images: Tensor) -> tuple[Tensor, list]:
    """Gradients of every image from batched backward passes: rows where they are small, two factors where linear."""
    layers = [m for m in model.encoder if isinstance(m, nn.Linear | nn.Conv2d | nn.BatchNorm2d)]
    small, linear = [], []
    for batch in images.split(500):
        inputs, outputs = {}, {}

        def note(layer, given, made, inputs=inputs, outputs=outputs):
            inputs[layer], outputs[layer] = given[0].detach(), made

        hooks = [layer.register_forward_hook(note) for layer in layers]
        loss = (model(batch) - batch).square().flatten(1).mean(1).sum()
        for hook in hooks:
            hook.remove()
        rows, pairs = [], []
        for layer, slope in zip(layers, torch.autograd.grad(loss, [outputs[layer] for layer in layers]), strict=True):
            given = inputs[layer]
            if isinstance(layer, nn.Linear):
                pairs.append((slope, F.pad(given, (0, 1), value=1.0)))
                continue
            if isinstance(layer, nn.Conv2d):
                patches = F.unfold(given, layer.kernel_size, padding=layer.padding, stride=layer.stride)
                rows.append((slope.flatten(2) @ patches.transpose(1, 2)).flatten(1))
            else:
                scale = (layer.running_var + layer.eps).rsqrt()
                shifted = (given - layer.running_mean[:, None, None]) * scale[:, None, None]
                rows.append((slope * shifted).sum((2, 3)))
            rows.append(slope.sum((2, 3)))
        small.append(torch.cat(rows, 1))
        linear.append(pairs)
    return torch.cat(small), [
        [torch.cat(each) for each in zip(*layer, strict=True)] for layer in zip(*linear, strict=True)
    ]


def batched(model: nn.Module, test: Tensor, train: Tensor) -> Tensor:
    """What an engineer would write for this encoder: one backward pass a batch, and products of the factors."""
    (rows, pairs), (others, opposite) = factors(model, test), factors(model, train)
    scores = rows @ others.T
    for (slope, given), (slopes, inputs) in zip(pairs, opposite, strict=True):
        scores.addcmul_(slope @ slopes.T, given @ inputs.T)
    return scores


def small(size: int = 1_000) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = mnist_autoencoder().eval()
    test, train = torch.rand(2, size, 1, 28, 28)
    state = [(model.state_dict(), 1.0)]
    seconds, scores = race(
        {
            "ours": lambda: tracin(model, lambda model, x: (model(x) - x).square().mean(), state, test, train),
            "torch: one batched backward, outer products": lambda: batched(model, test, train),
        },
        repeats=7,
    )
    ours, theirs = scores.values()
    error = float(f"{((theirs - ours).norm() / ours.norm()).item():.1e}")
    keep(f"TracIn, LF's MNIST encoder, {size:,} × {size:,}", seconds, **{"relative difference": error})


def main(train: int, tests: int) -> None:
    small()
    found = {}
    for way in WAYS:
        found[way] = alone("benchmarks.tracin", "--way", way, "--train", train, "--test", tests)
        print(f"  {way:44} {found[way]['seconds']:8.2f} s {found[way]['MiB']:6} MiB", flush=True)
    exact = torch.tensor(found["ours, memory=512"]["scores"])
    error = {
        way: float(f"{((torch.tensor(each['scores']) - exact).norm() / exact.norm()).item():.1e}")
        for way, each in found.items()
    }
    print("  relative error", error)
    seconds = {way: each["seconds"] for way, each in found.items()}
    memory = {way: each["MiB"] for way, each in found.items()}
    keep(f"TracIn, ResNet-18, {train} × {tests}", seconds, MiB=memory, **{"relative error": error})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=48)
    parser.add_argument("--test", type=int, default=24)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(run(asked.way, asked.train, asked.test)))
    else:
        main(asked.train, asked.test)
