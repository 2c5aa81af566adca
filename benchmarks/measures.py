"""Time the measures of maps against ten lines of torch without checks or ties, on 200 maps of 224×224.

python -m benchmarks.measures
"""

from functools import partial

import torch

from benchmarks.record import keep, race
from lfx_utils import measures

MAPS, SIDE = 200, 224


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    maps, masks = torch.rand(MAPS, 1, SIDE, SIDE), torch.zeros(MAPS, 1, SIDE, SIDE, dtype=torch.bool)
    masks[..., 40 : 40 + SIDE // 3, 60 : 60 + SIDE // 4] = True
    flat, where = maps.flatten(1), masks.flatten(1)
    size, positive = int(where[0].sum()), flat.clamp_min(0)
    ranks = torch.arange(1 - flat.shape[1], flat.shape[1], 2, dtype=torch.float64)

    def shares():
        return flat.abs().double() / flat.abs().double().sum(1, keepdim=True)

    def gini():
        values = flat.abs().double().sort(1).values
        return (values * ranks).sum(1) / (flat.shape[1] * values.sum(1))

    plain = {
        "pointing_game": lambda: where.gather(1, flat.argmax(1)[:, None]),
        "top_k": lambda: where.gather(1, flat.topk(1_000).indices).float().mean(1),
        "relevance_rank": lambda: where.gather(1, flat.topk(size, sorted=False).indices).float().mean(1),
        "relevance_mass": lambda: (positive * where).sum(1) / flat.clamp_min(0).sum(1),
        "complexity": lambda: -torch.xlogy(shares(), shares()).sum(1),
        "sparseness": gini,
    }
    for name, written in plain.items():
        given = (maps,) if name in ("complexity", "sparseness") else (maps, masks)
        print(name)
        ours = partial(getattr(measures, name), *given)
        keep(f"{name}, {MAPS} maps of {SIDE}²", race({"ours": ours, "ten lines of torch": written}, 7)[0])


if __name__ == "__main__":
    main()
