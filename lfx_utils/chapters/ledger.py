"""The ledger: what chapters computed, written beside the papers' claims and read back with the verdict that follows."""

import datetime
import json
import math
import os
import platform
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lfx_utils.chapters import judgement
from lfx_utils.chapters.claims import DATA, published, settings


def record(
    session,
    claim_id: str,
    estimate,
    *,
    dataset=None,
    encoder=None,
    stand_in: str = "",
    note: str = "",
    runs: int = 0,
    void: str = "",
) -> None:
    """Write one of our numbers into the session's results. Its verdict is derived whenever it is read, and never kept.

    The results of a chapter lie in `<session.out>/<chapter>.json`, written whole each time, so that a chapter that
    stops half-way leaves a readable file. A claim recorded twice keeps the later number.

    Args:
        session: from `lfx_utils.chapters.session.start`.
        claim_id: a row of the table of claims.
        estimate: our number; or `(number, low, high)` with the ends of its 95 % confidence interval; or None for a
            figure, or where it cannot be computed (`note` then says why).
        dataset: the `Dataset` it was computed on, if any.
        encoder: the encoder that was explained, or several; each says what it is in its `origin`. It must be named
            where the claim is about an architecture that we can build, so that none passes for the paper's in silence.
        stand_in: what else stands in for the paper's in this run, beyond what `data/published/settings.csv` names.
        note: one sentence for the scorecard.
        runs: of how many trainings the interval tells; 0 if it tells of something else, such as images.
        void: why the number supports no claim, such as a model that does not beat a constant; empty if it does.

    Raises:
        KeyError: an unknown claim id.
        ValueError: an interval whose ends are in the wrong order, a missing number without a note, or no encoder for
            a number about a known architecture.
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
    encoders = [encoder] if isinstance(encoder, torch.nn.Module) else encoder or []
    setting = settings()[claim_id]
    if value is not None and setting.get("encoder") and not encoders:
        raise ValueError(f"{claim_id} is about {setting['paper']}; pass the encoder that it was computed on.")
    row = {
        "id": claim_id,
        "value": None if value is None or not math.isfinite(value) else float(value),
        "low": None if interval is None else float(interval[0]),
        "high": None if interval is None else float(interval[1]),
        "runs": runs,
        "void": void,
        "profile": session.profile,
        "dataset": "" if dataset is None else dataset.name,
        "provenance": "" if dataset is None else dataset.provenance,
        "encoder": "; ".join(dict.fromkeys(getattr(each, "origin", "an encoder without a name") for each in encoders)),
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
    rows = _texts(path)
    rows[claim_id] = _text(row)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text("[\n" + ",\n".join(rows.values()) + "\n]", encoding="utf-8")
    part.replace(path)
    _WRITTEN[path] = _stamp(path), rows


_WRITTEN: dict[Path, tuple[tuple, dict[str, str]]] = {}  # what each file had when it was written here


def _text(row: dict) -> str:
    """A record as it stands in its file, `json.dumps([row], indent=1)` without the brackets."""
    return textwrap.indent(json.dumps(row, indent=1), " ")


def _stamp(path: Path) -> tuple:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _texts(path: Path) -> dict[str, str]:
    """Return the texts of a file's records by claim id; they are made anew only if the file has changed meanwhile."""
    if not path.exists():
        return {}
    stamp, rows = _WRITTEN.get(path, (None, {}))
    return rows if stamp == _stamp(path) else {name: _text(row) for name, row in read(path).items()}


def _cell() -> int | None:
    """The number of the notebook cell that is running; None outside a notebook.

    IPython counts on before the cell has run or after it, as versions differ; the list of inputs holds it either way.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell and len(shell.user_ns["In"]) - 1


def keep(session, name: str, table: pd.DataFrame) -> Path:
    """Write the values behind a chapter's intervals, that others may compute them anew; return the file's path.

    Args:
        session: from `lfx_utils.chapters.session.start`.
        name: of the file, `<session.out>/values/<chapter>-<name>.csv`; an older one is replaced.
        table: a row for each training, image or test example, its columns naming data, method and training.

    Raises:
        ValueError: a table without rows.
    """
    if table.empty:
        raise ValueError(f"There are no values to keep as {name!r}.")
    path = session.out / "values" / f"{session.chapter}-{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.6g")
    return path


def read(path: Path) -> dict[str, dict]:
    """Return the records of a file, by claim id; none if there is no such file."""
    return {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}


def hours(setting: str) -> str:
    """Return how many hours of one core a published setting takes, by the start of its name on the page "How fast".

    Raises:
        ValueError: none or several settings are called so.
    """
    rows = json.loads((DATA / "benchmarks" / "settings.json").read_text(encoding="utf-8"))["rows"]
    found = [row["hours"] for row in rows if row["setting"].startswith(setting)]
    if len(found) != 1:
        raise ValueError(f"setting must begin one of {[row['setting'] for row in rows]}, got {setting!r}.")
    return f"{found[0]:.0f}" if found[0] >= 10 else f"{found[0]:.1f}"


def summary(session) -> pd.DataFrame:
    """This chapter's records as a table: claim, the paper's number, ours with its interval, the verdict.

    A line for each table of cells says how well the order of its rows agrees. Where a larger run lies in
    `data/results`, its number, verdict and profile stand beside this session's.

    Raises:
        FileNotFoundError: the chapter has recorded nothing yet.
    """
    path = session.out / f"{session.chapter}.json"
    if not path.exists():
        raise FileNotFoundError(f"{session.chapter} has recorded no claim yet; expected {path}.")
    ours = read(path)
    large = read(DATA / "results" / path.name) if session.profile != "paper" else {}
    said, said_large = judgement.judge(ours), judgement.judge(large)
    return pd.DataFrame(
        {
            "claim": claim,
            "statement": published().statement[claim],
            "published": wording(published().loc[claim]),
            "ours": number(ours.get(claim), judged),
            "data": "; ".join(filter(None, (ours[claim]["dataset"], judgement.stands_in(ours[claim]))))
            if claim in ours
            else "",
            "verdict": judged.verdict,
            "larger run": claim in said_large
            and f"{number(large.get(claim), said_large[claim])}, {said_large[claim].verdict}"
            or None,
        }
        for claim, judged in said.items()
    )


def number(row: dict | None, judged: judgement.Judged) -> str:
    """Our number with its interval; for a table, what its verdict rests on."""
    return judged.basis if row is None else show(row["value"], row["low"], row["high"])


def wording(claim: pd.Series) -> str:
    """What the paper says, in words where it prints no number."""
    if claim.kind in ("order", "sign"):
        return "negative" if claim.published == "-" else "positive"
    if claim.kind == "table":
        return "the order of its rows"
    words = {"+": "positive", "-": "negative", "0": f"zero, to within {claim.spread}"}
    if claim.kind in ("identity", "test") and claim.published in words:
        return words[claim.published]
    return " ± ".join(filter(None, (claim.published, claim.spread)))


def show(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A number with its interval, to three digits: `0.39 [0.37, 0.41]`.

    >>> show(0.39, 0.371, 0.409), show(None), show(1.5e-7)
    ('0.39 [0.371, 0.409]', '–', '1.5e-07')
    """
    if value is None:
        return "–"
    return f"{value:.3g}" + (f" [{low:.3g}, {high:.3g}]" if low is not None else "")
