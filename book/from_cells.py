"""Orders over encoders that the cells of a kept run decide, written beside the cells in `data/results`.

    python book/from_cells.py

Cells are means over images. An order of chapter 7 is one number an encoder, a difference of cells on VOC, whose images
the decoders were trained on, with the interval over encoders. (Chapter 6 has one encoder that is strong enough; its
orders are over images.)
"""

import json

import numpy as np
from chapter import ROOT

from lfx_utils import measures
from lfx_utils.nemu.training import COLLAPSED

COMMAND = "python book/from_cells.py"
KINDS = ("supervised", "dino", "swav", "simclr")
NU = ("relax", "u-relax", "ig", "gradient-shap", "saliency", "nem-u")
FAITH = ("nem-u", "nem-u-inverse", "u-relax", "umt-relax", "naive")


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
    least = min(value(cells, f"NU.T3.size-nem-u-{kind}-voc") for kind in KINDS)
    void = f"the masks' mean size is {least:.3f}" if least < COLLAPSED else ""

    def over(name, method, methods=NU, sign=1, place=1):
        return [lead(cells, name, method, methods, f"{kind}-voc", sign, place) for kind in KINDS]

    games = [over("NU.T2.complexity", "nem-u", sign=-1), over("NU.T2.sparseness", "nem-u")]
    won = [np.mean([each > 0 for each in pair]) for pair in zip(*games, strict=True)]
    return {
        "NU.T2.relax-highest-rank": (over("NU.T2.relevance-rank", "relax"), ""),
        "NU.T2.nem-u-highest-mass": (over("NU.T2.relevance-mass", "nem-u"), ""),
        "NU.T2.nem-u-least-complex": (over("NU.T2.complexity", "nem-u", sign=-1), void),
        "NU.T2.nem-u-second-in-rank": (over("NU.T2.relevance-rank", "nem-u", place=2), ""),
        "NU.T2.nem-u-wins-most": ([share - 0.5 for share in won], void),
        "NU.T3.nem-u-first-or-second": (over("NU.T3.score", "nem-u", FAITH, place=2), void),
        "NU.T3.nem-u-above-naive": (over("NU.T3.score", "nem-u", ("nem-u", "naive")), void),
        "NU.T3.nem-u-above-umt-relax": (over("NU.T3.score", "nem-u", ("nem-u", "umt-relax")), void),
    }


def main() -> None:
    """Write the orders of chapter 7."""
    path = ROOT / "data" / "results" / "07_nem_u.json"
    cells = {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    # The encoders' cells may come from several runs: what an order rests on is all of them.
    behind = [cells[f"NU.T2.complexity-nem-u-{kind}-voc"] for kind in KINDS]
    told = {each: "; ".join(dict.fromkeys(row[each] for row in behind)) for each in ("stand_in", "provenance")}
    command = "; ".join(dict.fromkeys([*(row["command"] for row in behind), COMMAND]))
    for claim, (numbers, void) in nem_u(cells).items():
        mean, low, high = measures.mean_interval(numbers)
        note = f"From kept cells: {len(numbers)} encoders, on VOC"
        about = {"id": claim, "value": mean, "low": low, "high": high, "runs": 0}
        cells[claim] = behind[0] | about | told | {"note": note, "void": void, "command": command}
        print(f"{claim:32} {mean:8.3f} [{low:.3f}, {high:.3f}] {void}")
    path.write_text(json.dumps(list(cells.values()), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
