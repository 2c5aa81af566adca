"""Neighbours of 1,000 among 100,000 representations of 512 numbers, in ten shards read from a file, one of them killed.

    python -m benchmarks.shards              # about a minute of one core; faiss-cpu as the peer, where installed

Each run is a process of its own, so that its peak memory is its own, less what the imports take. The exponents are
those of the processor's seconds and of memory in the number of training examples, fitted to an eighth, a quarter, a
half and the whole.
"""

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import alone, keep, watched
from lfx_utils.examples import merge, near, shard
from lfx_utils.examples.shards import Best

SIZE, TESTS, WIDTH, K, SHARDS, BATCH = 100_000, 1_000, 512, 10, 10, 5_000


def batches(path: Path, start: int, stop: int, killed: bool = False):
    """Read batches from a file, and no more than one at a time; half-way be killed, if asked."""
    with path.open("rb") as file:
        file.seek(4 * WIDTH * start)
        for first in range(start, stop, BATCH):
            if killed and 2 * first >= start + stop:
                os.kill(os.getpid(), signal.SIGKILL)
            if killed and 2 * (first + BATCH) >= start + stop:
                time.sleep(1.1)  # The best so far are written once a second.
            count = min(BATCH, stop - first) * WIDTH
            yield torch.from_numpy(np.fromfile(file, np.float32, count)).view(-1, WIDTH)


def run(how: str, folder: Path, start: int, stop: int) -> dict:
    """Search the examples from start to stop, and measure that."""
    torch.set_num_threads(1)
    test = torch.from_numpy(np.fromfile(folder / "test", np.float32)).view(-1, WIDTH)
    indices, seconds, mib = watched(lambda: searched(how, folder, test, start, stop))
    torch.save(indices, folder / f"{how}-{start}-{stop}")
    return {"seconds": seconds, "mib": mib}


def searched(how: str, folder: Path, test: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    if how == "faiss":
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatL2(WIDTH)
        for batch in batches(folder / "train", start, stop):
            index.add(batch.numpy())
        return torch.from_numpy(index.search(test.numpy(), K)[1])
    read = batches(folder / "train", start, stop, how == "killed")
    return shard(near(test), read, K, start=start, checkpoint=folder / f"{start}-{stop}.pt").indices


def measured(*given) -> dict:
    return alone("benchmarks.shards", "--run", *given)


def exponent(sizes: list[int], values: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def killed(folder: Path, start: int, stop: int) -> tuple[dict, int]:
    """Kill a shard half-way, and let it go on."""
    with suppress(subprocess.CalledProcessError):
        measured("killed", folder, start, stop)
    seen = len(torch.load(folder / f"{start}-{stop}.pt", weights_only=True)["marks"])
    return measured("ours", folder, start, stop), seen


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.randn(TESTS, WIDTH, generator=generator).numpy().tofile(folder / "test")
        with (folder / "train").open("wb") as file:
            for _ in range(0, SIZE, BATCH):
                torch.randn(BATCH, WIDTH, generator=generator).numpy().tofile(file)
        sizes = [SIZE // 8, SIZE // 4, SIZE // 2, SIZE]
        # The least of two: the state of the first is removed, so that the second does it all again.
        runs = []
        for size in sizes:
            pair = []
            for _ in range(2):
                (folder / f"0-{size}.pt").unlink(missing_ok=True)
                pair.append(measured("ours", folder, 0, size))
            runs.append(min(pair, key=lambda each: each["seconds"]))
        peers = [measured("faiss", folder, 0, SIZE) for _ in range(2)] if find_spec("faiss") else []
        edges = [SIZE * part // SHARDS for part in range(SHARDS + 1)]
        parts = [measured("ours", folder, *edge) for edge in zip(edges[:-1], edges[1:], strict=True)]
        found = [torch.load(folder / f"{start}-{stop}.pt", weights_only=True) for start, stop in zip(edges, edges[1:])]
        best = merge([Best(part["values"], part["indices"]) for part in found])
        (folder / f"0-{SIZE}.pt").unlink()
        resumed, seen = killed(folder, 0, SIZE)
        whole = torch.load(folder / f"ours-0-{SIZE}", weights_only=True)
        seconds = {"one search by batches": runs[-1]["seconds"]}
        seconds[f"{SHARDS} shards and their merge"] = sum(part["seconds"] for part in parts)
        same = {"shards": torch.equal(best.indices, whole)}
        facts = {"MiB": {"one search by batches": runs[-1]["mib"], "a shard": max(part["mib"] for part in parts)}}
        if peers:
            seconds["faiss IndexFlatL2, all in memory"] = min(each["seconds"] for each in peers)
            facts["MiB"]["faiss"] = min(each["mib"] for each in peers)
            same["faiss"] = (torch.load(folder / f"faiss-0-{SIZE}") == whole).double().mean().item()
    seconds_of, mib_of = ([each[unit] for each in runs] for unit in ("seconds", "mib"))
    facts["exponent of time"], facts["exponent of memory"] = exponent(sizes, seconds_of), exponent(sizes, mib_of)
    # A straight line has a place for the fixed cost, which keeps the exponent below 1. Memory does not grow.
    slope, fixed = np.polyfit(sizes, seconds_of, 1)
    facts["seconds for a million examples, extrapolated"] = float(fixed + 1e6 * slope)
    facts["killed"] = {"batches seen": seen, "of": SIZE // BATCH, "seconds to the end": resumed["seconds"]}
    job = f"neighbours in shards, {SIZE:,} × {TESTS:,} × {WIDTH}, k = {K}"
    print(job, seconds, facts, same, sep="\n")
    keep(job, seconds, packages=("faiss-cpu",), same=same, **facts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    if asked := parser.parse_args().run:
        print(json.dumps(run(asked[0], Path(asked[1]), int(asked[2]), int(asked[3]))))
    else:
        main()
