"""Gather the records of a sweep into one table: a claim's mean over seeds, its interval, and its verdict anew.

    python workflow/gather.py _build/sweep [--name sweep.csv]

Where a claim has one seed only, its record stands as it is. Intervals over seeds are Student's, 95 %.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "book")]
from chapter import write  # noqa: E402

from lfx_utils import measures  # noqa: E402
from lfx_utils.chapters import judgement  # noqa: E402

GROUP = ["id", "chapter", "part", "profile", "dataset", "stand_in"]
KEPT = ["value", "low", "high"]


def over_seeds(group: pd.DataFrame) -> pd.Series:
    """One line for the records of a claim that differ in their seed only."""
    ours = group.iloc[0][KEPT].where(group.iloc[0][KEPT].notna(), None)
    if len(group) > 1 and group["value"].notna().all():
        ours[KEPT] = measures.mean_interval(group["value"])
    row = group.iloc[0].to_dict() | ours.to_dict() | {"runs": len(group)}
    ours["verdict"] = judgement.judge({row["id"]: row})[row["id"]].verdict
    return pd.concat([group.iloc[0][GROUP], ours, pd.Series({"runs": len(group), "seconds": group["seconds"].sum()})])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="sweep.csv")
    asked = parser.parse_args()
    paths = sorted((asked.out / "records").rglob("*.json"))
    rows = [row | {"part": path.parent.name} for path in paths for row in json.loads(path.read_text(encoding="utf-8"))]
    groups = pd.DataFrame(rows).groupby(GROUP, sort=False) if rows else []
    table = pd.DataFrame([over_seeds(group) for _, group in groups])
    write(asked.out / asked.name, table.to_csv(index=False))
    print(f"{len(table)} claims of {len(paths)} runs: {asked.out / asked.name}")


if __name__ == "__main__":
    main()
