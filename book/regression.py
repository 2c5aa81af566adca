"""Compare a fresh run's numbers with their bands in `data/reference`, or make the bands from several runs.

    python book/regression.py [--profile quick]    # the last build against the bands; status 1 if a number left its own
    python book/regression.py --from DIR DIR …     # bands from folders of records, one run (seed) each, seed 0 first

A band is wide enough for another CPU or seed and too narrow for another sign: it holds every run's number with a
margin of their range and a quarter of their size, and stops at zero where no run's interval reached zero. The same runs
say how often the intervals of the first hold the numbers of the others (`data/reference/seeds.csv`).
"""

import argparse
import csv
import json
import sys
from pathlib import Path

from chapter import BUILD, ROOT

BANDS = ROOT / "data" / "reference" / "bands.csv"
SEEDS = ROOT / "data" / "reference" / "seeds.csv"
COLUMNS = ("profile", "dataset", "id", "low", "high")


def read() -> dict[tuple[str, str, str], tuple[float, float]]:
    """Return the bands by (profile, data set, claim id)."""
    with BANDS.open(newline="", encoding="utf-8") as file:
        return {
            tuple(row[c] for c in COLUMNS[:3]): (float(row["low"]), float(row["high"])) for row in csv.DictReader(file)
        }


def outside(rows: list[dict]) -> list[str]:
    """Return one sentence for each record that lies outside its band; a record without a band is not judged."""
    bands, wrong = read(), []
    for row in rows:
        low, high = bands.get((row["profile"], row["dataset"], row["id"]), (float("-inf"), float("inf")))
        if row["value"] is not None and not low <= row["value"] <= high:
            wrong.append(
                f"{row['id']} on {row['dataset'] or 'no data'}: {row['value']:.4g} is outside [{low:.4g}, {high:.4g}]"
            )
    return wrong


def band(runs: list[dict]) -> tuple[float, float]:
    """Return the band around one claim's records, one a run."""
    values = [run["value"] for run in runs]
    margin = max(values) - min(values) + (0.25 * max(abs(value) for value in values) or 0.1)
    low, high = min(values) - margin, max(values) + margin
    if all((run["value"] if run["low"] is None else run["low"]) > 0 for run in runs):
        low = max(low, 0.0)
    if all((run["value"] if run["high"] is None else run["high"]) < 0 for run in runs):
        high = min(high, 0.0)
    return low, high


def make(folders: list[Path]) -> None:
    """Write the bands of every number in the folders' records; identities get their tolerance, timings none."""
    with (ROOT / "data" / "published" / "claims.csv").open(newline="", encoding="utf-8") as file:
        claims = {claim["id"]: claim for claim in csv.DictReader(file)}
    found: dict[tuple, list[dict]] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            found.setdefault((row["profile"], row["dataset"], row["id"]), []).append(row)
    bands = read() if BANDS.exists() else {}
    for key, runs in found.items():
        claim, runs = claims[key[2]], [run for run in runs if run["value"] is not None]
        if not runs or "seconds" in claim["unit"]:
            continue
        proof = claim["kind"] in ("identity", "test") and claim["published"] == "0" and runs[0]["low"] is None
        bands[key] = (0.0, float(claim["spread"])) if proof else band(runs)
    with BANDS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*key, f"{low:.6g}", f"{high:.6g}") for key, (low, high) in sorted(bands.items()))


def held(runs: list[list[dict]]) -> dict[str, tuple[int, int]]:
    """Return by chapter how many numbers of the later runs the first run's intervals hold, and of how many.

    Two runs of equal size differ by √2 times as much as either from the truth: 95 % intervals of the right width hold
    83 % of the other run's numbers.
    """
    first, *others = ({row["id"]: row for row in run if row["value"] is not None} for run in runs)
    found: dict[str, tuple[int, int]] = {}
    for claim, row in first.items():
        values = [other[claim]["value"] for other in others if claim in other and row["low"] is not None]
        inside = sum(row["low"] <= value <= row["high"] for value in values)
        hits, count = found.get(row["chapter"], (0, 0))
        found[row["chapter"]] = hits + inside, count + len(values)
    return {chapter: pair for chapter, pair in sorted(found.items()) if pair[1]}


def compare(folders: list[Path]) -> None:
    """Write the table of `held` for these folders, one run each."""
    runs = [
        [row for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text(encoding="utf-8"))]
        for folder in folders
    ]
    with SEEDS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("chapter", "held", "of"))
        writer.writerows((chapter, *pair) for chapter, pair in held(runs).items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick")
    parser.add_argument(
        "--from", dest="folders", type=Path, nargs="+", help="folders of records to make the bands from"
    )
    asked = parser.parse_args()
    if asked.folders:
        make(asked.folders)
        compare(asked.folders)
        return 0
    paths = sorted((BUILD / "results" / asked.profile).glob("*.json"))
    if not paths:
        sys.exit(f"There are no records of the {asked.profile} profile in {BUILD / 'results'}: run make book first.")
    rows = [row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))]
    wrong = outside(rows)
    print("\n".join([*wrong, f"{len(rows) - len(wrong)} of {len(rows)} records are inside their bands or have none."]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
