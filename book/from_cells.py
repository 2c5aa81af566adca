"""Orders over encoders that the cells of a kept run decide, written beside the cells in `data/results`.

    python book/from_cells.py

Cells are means over images. An order is one number an encoder, the mean over data sets (and scores) of a difference of
cells, with the interval over encoders, who saw the same images.
"""

import json
from itertools import product

import numpy as np
from chapter import ROOT

from lfx_utils import measures

COMMAND = "python book/from_cells.py"
SETS = ("voc", "coco")
SMALL = 0.02  # a mask of less than this mean size has collapsed
RELAX_KINDS = ("supervised", "simclr", "swav")
NEM_U_KINDS = ("supervised", "dino", "swav", "simclr")
NU = ("relax", "u-relax", "ig", "gradient-shap", "saliency", "nem-u")
FAITH = ("nem-u", "nem-u-inverse", "u-relax", "umt-relax", "naive")
SCORES = ("pointing-game", "top-k", "relevance-rank")


def value(cells: dict, claim: str) -> float:
    """Return a cell's number."""
    return cells[claim]["value"]


def lead(cells: dict, name: str, method: str, methods: tuple[str, ...], end: str, sign: int = 1, place: int = 1):
    """Return by how much a method leads the one in this place among the others, in the cells `name-method-end`."""
    numbers = {m: sign * value(cells, f"{name}-{m}-{end}") for m in methods}
    own = numbers.pop(method)
    return own - sorted(numbers.values(), reverse=True)[place - 1]


def nem_u(cells: dict) -> dict[str, tuple[list[float], str]]:
    """Return for each order of chapter 7 a number for each encoder, and why it is void."""
    kinds = NEM_U_KINDS
    least = min(value(cells, f"NU.T3.size-nem-u-{k}-{c}") for k, c in product(kinds, SETS))
    void = f"the masks' mean size is {least:.3f}" if least < SMALL else ""

    def over(name, method, methods=NU, sign=1, places=(1, 1)):
        ends = [[f"{kind}-{column}" for column in SETS] for kind in kinds]
        return [
            np.mean([lead(cells, name, method, methods, end, sign, place) for end, place in zip(pair, places)])
            for pair in ends
        ]

    games = list(product((("NU.T2.complexity", -1), ("NU.T2.sparseness", 1)), SETS))
    won = [
        np.mean([lead(cells, name, "nem-u", NU, f"{kind}-{column}", sign) > 0 for (name, sign), column in games])
        for kind in kinds
    ]
    return {
        "NU.T2.relax-highest-rank": (over("NU.T2.relevance-rank", "relax"), ""),
        "NU.T2.nem-u-highest-mass": (over("NU.T2.relevance-mass", "nem-u"), ""),
        "NU.T2.nem-u-least-complex": (over("NU.T2.complexity", "nem-u", sign=-1), void),
        "NU.T2.nem-u-second-in-rank": (over("NU.T2.relevance-rank", "nem-u", places=(2, 3)), ""),
        "NU.T2.nem-u-wins-most": ([share - 0.5 for share in won], void),
        "NU.T3.nem-u-first-or-second": (over("NU.T3.score", "nem-u", FAITH, places=(2, 2)), void),
    }


def relax(cells: dict) -> dict[str, tuple[list[float], str]]:
    """Return the same for chapter 6."""
    kinds = RELAX_KINDS

    def over(*names):
        pairs = list(product(names, SCORES, SETS))
        return [
            np.mean(
                [
                    value(cells, f"{row}.{score}-{one}-{kind}-{column}")
                    - value(cells, f"{row}.{score}-{other}-{kind}-{column}")
                    for (row, one, other), score, column in pairs
                ]
            )
            for kind in kinds
        ]

    gammas = ("095", "099", "100")
    gradients = ("saliency", "smooth-saliency", "guided-saliency")
    found = {
        "RX.T1.relax-above-u-relax": over(("RX.T1", "relax", "u-relax")),
        "RX.U.median-not-worse": over(*[("RX.U", f"median-{gamma}", f"mean-{gamma}") for gamma in gammas]),
        "RX.U.smaller-gamma-degrades": over(*[("RX.U", f"{how}-100", f"{how}-095") for how in ("mean", "median")]),
        "RX.TA1.zeros-above-noise": over(("RX.TA1", "zeros", "noise")),
    }
    for score in SCORES:
        found[f"RX.T1.{score}-relax-above-gradients"] = [
            np.mean([lead(cells, f"RX.T1.{score}", "relax", ("relax", *gradients), f"{k}-{c}") for c in SETS])
            for k in kinds
        ]
    name = "RX.T2.monotonicity"
    found[f"{name}-relax-above-gradients"] = [lead(cells, name, "relax", ("relax", *gradients), k) for k in kinds]
    found[f"{name}-u-relax-above-relax"] = [lead(cells, name, "u-relax", ("u-relax", "relax"), k) for k in kinds]
    return {claim: (numbers, "") for claim, numbers in found.items()}


def main() -> None:
    """Write the orders of both chapters."""
    for chapter, orders, kinds, like in (
        ("06_relax", relax, RELAX_KINDS, "RX.T1.pointing-game-relax"),
        ("07_nem_u", nem_u, NEM_U_KINDS, "NU.T2.complexity-nem-u"),
    ):
        path = ROOT / "data" / "results" / f"{chapter}.json"
        cells = {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
        # The encoders' cells may come from several runs: what an order rests on is all of them.
        behind = [cells[f"{like}-{kind}-{which}"] for kind, which in product(kinds, SETS)]
        told = {each: "; ".join(dict.fromkeys(row[each] for row in behind)) for each in ("stand_in", "provenance")}
        command = "; ".join(dict.fromkeys([*(row["command"] for row in behind), COMMAND]))
        for claim, (numbers, void) in orders(cells).items():
            mean, low, high = measures.mean_interval(numbers)
            note = f"From kept cells: {len(numbers)} encoders, mean over VOC and COCO"
            about = {"id": claim, "value": mean, "low": low, "high": high, "runs": 0}
            cells[claim] = behind[0] | about | told | {"note": note, "void": void, "command": command}
            print(f"{claim:32} {mean:8.3f} [{low:.3f}, {high:.3f}] {void}")
        path.write_text(json.dumps(list(cells.values()), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
