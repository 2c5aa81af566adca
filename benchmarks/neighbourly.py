"""Two threads on small tensors beside a busy neighbour: waiting by spinning, as OpenMP does, against giving way.

python -m benchmarks.neighbourly         # a minute; each run is a process of its own, seconds are the clock's

A neighbour is a process that multiplies matrices on every core. The contenders take turns.
"""

import argparse
import os
import subprocess
import sys
import time

import torch

from benchmarks.record import alone, keep

WAYS = {"passive": {"OMP_WAIT_POLICY": "passive"}, "OpenMP's default": {}}


def train(steps: int = 20) -> float:
    """Seconds of a few backward passes through a small network."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3))
    x = torch.rand(50, 1, 28, 28)
    for _ in range(3):
        network(x).square().mean().backward()
    start = time.perf_counter()
    for _ in range(steps):
        network(x).square().mean().backward()
    return time.perf_counter() - start


def busy() -> None:
    x = torch.rand(500, 500)
    while True:
        x @ x


def main(repeats: int = 3) -> None:
    found = {name: {"busy": [], "as it is": []} for name in WAYS}
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    busily = [sys.executable, "-m", "benchmarks.neighbourly", "--what", "busy"]
    one = plain | {"OMP_NUM_THREADS": "1"}
    for neighbours, cores in (("as it is", 0), ("busy", os.cpu_count() or 1)):
        started = [subprocess.Popen(busily, env=one) for _ in range(cores)]
        try:
            for _ in range(repeats):
                for name, policy in WAYS.items():
                    given = plain | {"OMP_NUM_THREADS": "2"} | policy
                    found[name][neighbours].append(alone("benchmarks.neighbourly", "--what", "train", env=given))
        finally:
            for process in started:
                process.kill()
    print(found)
    seconds = {name: min(each["busy"]) for name, each in found.items()}
    quiet = {name: min(each["as it is"]) for name, each in found.items()}
    keep("two threads on small tensors beside a busy neighbour, seconds of the clock", seconds, **{"without it": quiet})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=("train", "busy"), help=argparse.SUPPRESS)
    asked = parser.parse_args().what
    if asked == "train":
        print(train())
    elif asked == "busy":
        busy()
    else:
        main()
