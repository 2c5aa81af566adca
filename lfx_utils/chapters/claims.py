"""What the papers claim, what they measured it on, and what stands in for that in a record."""

import functools
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

DATA = Path(__file__).resolve().parents[2] / "data"


@functools.cache
def published() -> pd.DataFrame:
    """The papers' claims, one row each, indexed by claim id; columns as in `data/published/README.md`.

    Raises:
        FileNotFoundError: the table is not beside the package, as after a plain wheel install.
    """
    path = DATA / "published" / "claims.csv"
    if not path.exists():
        raise FileNotFoundError(
            f"The table of published claims is missing at {path}; work from a clone of the repository."
        )
    return pd.read_csv(path, index_col="id", dtype=str, keep_default_na=False)


@functools.cache
def rows() -> dict[str, tuple]:
    """By claim id, its row of the table of claims as a named tuple: pandas makes a series of one, ten times slower."""
    return {row.Index: row for row in published().itertuples()}


@functools.cache
def settings() -> dict[str, dict[str, str]]:
    """By claim id, what the paper measured it on and what stands in here.

    `data` are the paper's data sets; `paper` is its encoder in words, and `encoder` the same as our models call it in
    their `origin`, where we can build it; `ours` is what always stands in.
    """
    table = pd.read_csv(DATA / "published" / "settings.csv", dtype=str, keep_default_na=False).to_dict("records")
    patterns = [(pattern, row) for row in table for pattern in row["claims"].split()]
    return {
        claim: next((row for pattern, row in patterns if fnmatchcase(claim, pattern)), {})
        for claim in published().index
    }


def stands_in(row: dict) -> str:
    """Say what stands in for the paper's in a record: as its encoder says, as it says itself, and as `settings` says.

    A chapter that forgets to name a stand-in is corrected by the table, so that silence never counts as the paper's.
    """
    setting = settings()[row["id"]]
    theirs = setting.get("encoder", "").split("; ")
    others = [each for each in row.get("encoder", "").split("; ") if each and each not in theirs]
    network = f"{' and '.join(others)} for {setting['paper']}" if others and setting else ""
    said = row["stand_in"] or ("" if network else setting.get("ours", ""))
    named = "; ".join(filter(None, (network, said)))
    data = setting.get("data", "").split()
    other = f"{row['dataset'] or 'unnamed data'} for {' or '.join(data)}" if data and row["dataset"] not in data else ""
    return "; ".join(filter(None, (named, other)))
