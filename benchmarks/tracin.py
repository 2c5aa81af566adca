"""TracIn on a ResNet-18, 11 million parameters: time and peak memory, and the error of projected gradients.

python -m benchmarks.tracin [--train 24 --test 12]      # minutes of one core; each run is a process of its own
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torchvision.models import resnet18

from benchmarks.record import keep
from lfx_utils.examples import tracin

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
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if WAYS[way] is None:
        scores = plain(network, test, train)
    else:
        state = [(network.state_dict(), 1.0)]
        scores = tracin(network, lambda model, x: model(x).square().mean(), state, test, train, part="", **WAYS[way])
    seconds = time.process_time() - start
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    return {"seconds": seconds, "MiB": round(mib), "scores": scores.tolist()}


def main(train: int, tests: int) -> None:
    found = {}
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.tracin", "--way", way, "--train", str(train), "--test", str(tests)]
        found[way] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
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
    parser.add_argument("--train", type=int, default=24)
    parser.add_argument("--test", type=int, default=12)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(run(asked.way, asked.train, asked.test)))
    else:
        main(asked.train, asked.test)
