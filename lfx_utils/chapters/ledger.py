"""The ledger: each published claim beside the number computed here, and a verdict that follows from the two."""

import datetime
import functools
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lfx_utils.datasets import MODULES

DATA = Path(__file__).resolve().parents[2] / "data"
STAND_INS = {module.STAND_IN for module in MODULES.values() if hasattr(module, "STAND_IN")}
VERDICTS = ("reproduced", "reproduced in kind", "not settled at this size", "contradicted", "drawn", "not computable")


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
    return pd.read_csv(path, index_col="id", dtype={"published": str, "unit": str, "cell": str}, keep_default_na=False)


def verdict(kind: str, expected: str, spread: str, value: float | None, interval, *, real: bool, full: bool) -> str:
    """Judge one number by rule; nobody types a verdict.

    - *value*: reproduced if it equals the published one, or differs by at most 1.96 standard errors of the difference
      (ours from the interval, the paper's from its ±), not settled if our interval is wider than the number is large;
      in kind if the sign agrees and the ratio is below two; else contradicted at the published setting, and not
      settled below it.
    - *order* and *sign*: reproduced if the interval lies wholly on the claimed side of zero, contradicted if wholly on
      the other.
    - *proof*: reproduced if the residual is within the tolerance, which stands in the table as the spread. For an
      identity in expectation, with an interval: if that contains zero and is narrower than ten tolerances.
    - *figure*: drawn.

    Where data or encoder stand in for the paper's, reproduced becomes reproduced in kind, and contradicted becomes not
    settled.

    Args:
        kind: `value`, `order`, `sign`, `proof`, `figure` or `uncomputable`.
        expected, spread: as text from the table of claims; may be empty.
        value, interval: ours; the interval is `(low, high)` or None.
        real: computed on the paper's data and kind of encoder.
        full: computed at the published setting.

    >>> verdict("order", "", "", 0.3, (0.1, 0.5), real=True, full=False)
    'reproduced'
    >>> verdict("order", "", "", 0.3, (-0.1, 0.7), real=True, full=True)
    'not settled at this size'
    """
    if kind in ("figure", "uncomputable"):
        return "drawn" if kind == "figure" else "not computable"
    if value is None or not math.isfinite(value):
        return "not computable"
    yes, no = ("reproduced", "contradicted") if real else ("reproduced in kind", "not settled at this size")
    low, high = interval if interval is not None else (value, value)
    if kind == "proof" and interval is not None:
        return (
            "contradicted"
            if low > 0 or high < 0
            else "reproduced"
            if high - low < 10 * float(spread)
            else "not settled at this size"
        )
    if kind == "proof":
        return "reproduced" if abs(value) <= float(spread) else "contradicted"
    if kind in ("order", "sign"):
        low, high = (-high, -low) if expected == "-" else (low, high)
        return yes if low > 0 else no if high < 0 else "not settled at this size"
    target = float(expected)
    error = math.hypot((high - low) / (2 * 1.96), float(spread or 0))
    if abs(value - target) <= 1.96 * error or math.isclose(value, target, rel_tol=1e-9):
        return yes if high - low < abs(target) else "not settled at this size"
    if value * target > 0 and 0.5 < value / target < 2:
        return "reproduced in kind"
    return no if full else "not settled at this size"


def record(session, claim_id: str, estimate, *, dataset=None, stand_in: str = "", note: str = "") -> str:
    """Write one of our numbers into the session's results, beside the published one, and return its verdict.

    The results of a chapter lie in `<session.out>/<chapter>.json`, written whole each time, so that a chapter that
    stops half-way leaves a readable file. A claim recorded twice keeps the later number.

    Args:
        session: from `lfx_utils.chapters.session.start`.
        claim_id: a row of the table of claims.
        estimate: our number; or `(number, low, high)` with the ends of its 95 % confidence interval; or None for a
            figure, or where it cannot be computed (`note` then says why).
        dataset: the `Dataset` it was computed on, if any.
        stand_in: what else stands in for the paper's, such as an encoder trained here; judged as stand-in data is.
        note: one sentence for the scorecard.

    Raises:
        KeyError: an unknown claim id.
        ValueError: an interval whose ends are in the wrong order, or a missing number without a note.
    """
    if claim_id not in published().index:
        raise KeyError(f"Unknown claim id {claim_id!r}; the known ones are the rows of data/published/claims.csv.")
    claim = published().loc[claim_id]
    value, *interval = estimate if isinstance(estimate, tuple | list) else (estimate,)
    if len(interval) not in (0, 2) or (interval and interval[0] > interval[1]):
        raise ValueError(f"estimate must be a number or (number, low, high), got {estimate} for {claim_id}.")
    interval = interval or None
    if value is None and claim.kind != "figure" and not note:
        raise ValueError(f"{claim_id} has no value; say why in note.")
    real = not stand_in and (dataset is None or dataset.name not in STAND_INS)
    full = (
        session.profile == "paper" and claim.paper != "errata"
    )  # the errata's numbers come from encoders of no published size
    row = {
        "id": claim_id,
        "value": None if value is None or not math.isfinite(value) else float(value),
        "low": None if interval is None else float(interval[0]),
        "high": None if interval is None else float(interval[1]),
        "verdict": verdict(claim.kind, claim.published, claim.spread, value, interval, real=real, full=full),
        "profile": session.profile,
        "dataset": "" if dataset is None else dataset.name,
        "provenance": "" if dataset is None else dataset.provenance,
        "stand_in": stand_in,
        "seed": session.seed,
        "chapter": session.chapter,
        "cell": _cell(),
        "note": note,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "device": torch.cuda.get_device_name()
        if session.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
        "seconds": round(time.perf_counter() - session.began, 1),
        "recorded": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    path = session.out / f"{session.chapter}.json"
    rows = {old["id"]: old for old in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}
    rows[claim_id] = row
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(list(rows.values()), indent=1), encoding="utf-8")
    part.replace(path)
    return row["verdict"]


def _cell() -> int | None:
    """The number of the notebook cell that is running; None outside a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell and shell.execution_count


def summary(session) -> pd.DataFrame:
    """This chapter's records as a table: claim, the paper's number, ours with its interval, the verdict.

    Where a larger run lies in `data/results`, its number, verdict and profile stand beside this session's.

    Raises:
        FileNotFoundError: the chapter has recorded nothing yet.
    """
    path = session.out / f"{session.chapter}.json"
    if not path.exists():
        raise FileNotFoundError(f"{session.chapter} has recorded no claim yet; expected {path}.")
    kept = DATA / "results" / f"{session.chapter}.json"
    larger = {row["id"]: row for row in json.loads(kept.read_text(encoding="utf-8"))} if kept.exists() else {}
    rows = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        claim = published().loc[row["id"]]
        large = larger.get(row["id"]) if session.profile != "paper" else None
        rows.append(
            {
                "claim": row["id"],
                "statement": claim.statement,
                "published": _printed(claim),
                "ours": show(row["value"], row["low"], row["high"]),
                "data": _on(row["dataset"], row["stand_in"]),
                "verdict": row["verdict"],
                "larger run": large
                and f"{show(large['value'], large['low'], large['high'])}, {large['verdict']} "
                f"({_on(large['profile'], large['stand_in'])})",
            }
        )
    return pd.DataFrame(rows)


def _on(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _printed(claim: pd.Series) -> str:
    """What the paper says, in words where it prints no number."""
    if claim.kind == "proof":
        return f"zero, to within {claim.spread}"
    words = {"order": "a positive difference", "sign": {"+": "positive", "-": "negative"}.get(claim.published)}
    return words.get(claim.kind) or " ± ".join(filter(None, (claim.published, claim.spread)))


def show(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A number with its interval, to three digits: `0.39 [0.37, 0.41]`.

    >>> show(0.39, 0.371, 0.409), show(None), show(1.5e-7)
    ('0.39 [0.371, 0.409]', '–', '1.5e-07')
    """
    if value is None:
        return "–"
    return f"{value:.3g}" + (f" [{low:.3g}, {high:.3g}]" if low is not None else "")
