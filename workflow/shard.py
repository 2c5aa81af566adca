"""Search one shard of a training set in a file, or join what the shards found; the jobs of `workflow/Shards`.

python workflow/shard.py one h_train.npy h_test.npy 3.pt --part 3 --of 10 -k 10
python workflow/shard.py merge 0.pt 1.pt … best.npz
"""

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path.cwd())]
from lfx_utils.examples import merge, near, shard  # noqa: E402
from lfx_utils.examples.shards import Best  # noqa: E402

BATCH = 5_000


def batches(path: Path, start: int, stop: int):
    """Read a file's rows from start to stop, and hold no more than one batch."""
    rows = np.load(path, mmap_mode="r")
    for first in range(start, stop, BATCH):
        yield torch.from_numpy(np.array(rows[first : min(first + BATCH, stop)]))


def one(train: Path, test: Path, out: Path, part: int, of: int, k: int, search: str) -> None:
    """Search a shard, and put its result in place once it is whole; what a killed job leaves lies beside it."""
    size = len(np.load(train, mmap_mode="r"))
    start, stop = size * part // of, size * (part + 1) // of
    module, _, function = search.partition(":")
    made = getattr(importlib.import_module(module), function) if search else near
    state = out.with_suffix(".unfinished")
    best = shard(made(torch.from_numpy(np.load(test))), batches(train, start, stop), k, start=start, checkpoint=state)
    torch.save(best._asdict(), out)
    state.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("one", "merge"))
    parser.add_argument("paths", nargs="+", type=Path)
    for option in ("--part", "--of", "-k"):
        parser.add_argument(option, type=int)
    parser.add_argument("--search", default="")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "one":
        one(*asked.paths, asked.part, asked.of, asked.k, asked.search)
    else:
        *parts, out = asked.paths
        best = merge([Best(**torch.load(part, weights_only=True)) for part in parts])
        np.savez(out, values=best.values.numpy(), indices=best.indices.numpy())


if __name__ == "__main__":
    main()
