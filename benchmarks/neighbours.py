"""DKNN against faiss and a bare matrix product, and `top` against torch.topk: 100,000 × 1,000 numbers of 512.

python -m benchmarks.neighbours          # about a minute of one core; pip install faiss-cpu==1.15.1
"""

import torch

from benchmarks.record import keep, race
from lfx_utils.examples import dknn, near, shard, top

SIZE, TESTS, WIDTH, K = 100_000, 1_000, 512, 10


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, test = torch.randn(SIZE, WIDTH), torch.randn(TESTS, WIDTH)
    squares = train.square().sum(1)

    def bare():
        blocks = test.split(max(1, 2**24 // SIZE))
        return torch.cat([torch.addmm(squares, b, train.T, alpha=-2).topk(K, largest=False).indices for b in blocks])

    def flat():
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatL2(WIDTH)
        index.add(train.numpy())
        return torch.from_numpy(index.search(test.numpy(), K)[1])

    contenders = {
        "ours, distances and indices": lambda: shard(near(test), train, K, batch_size=SIZE).indices,
        "ours, DKNN's scores for all": lambda: dknn(test, train, K),
        "torch: matrix product and topk": bare,
        "faiss IndexFlatL2": flat,
    }
    job = f"nearest neighbours, {SIZE:,} × {TESTS:,} × {WIDTH}, k = {K}"
    print(job)
    seconds, found = race(contenders, 3)
    ours = next(iter(found.values()))
    same = {name: (ours == found[name]).double().mean().item() for name in seconds if found[name].shape == ours.shape}
    keep(job, seconds, packages=("faiss-cpu",), **{"share of the same neighbours": same})

    scores = torch.randn(TESTS, SIZE)
    job = f"top and bottom {K} of scores, {TESTS:,} × {SIZE:,}"
    print(job)
    both = lambda: (scores.topk(K), scores.topk(K, largest=False))  # noqa: E731
    keep(job, race({"ours": lambda: top(scores, K), "torch.topk, both ends": both}, 3)[0])


if __name__ == "__main__":
    main()
