"""What pages include and nobody types: verdicts, times, the index of figures, the numbers behind the errata."""

import csv
import sys

import pandas as pd
from chapter import ROOT, Chapter

sys.path.insert(0, str(ROOT))
from lfx_utils.chapters import scorecard  # noqa: E402


def generated(everything: list[Chapter]) -> dict[str, str]:
    """Return what pages include: the count of verdicts, each chapter's time, and the index of figures."""
    folder = everything[0].records.parent
    verdicts = table(scorecard.headline(scorecard.collect(folder))) if folder.is_dir() else []
    times = ["| chapter | seconds | CPU threads |", "|---|---|---|"]
    for chapter in everything:
        made = chapter.past()
        times.append(f"| {{doc}}`/notebooks/{chapter.name}` | {made['seconds']:.0f} | {made['threads']} |")
    figures = []
    for chapter in everything:
        figures += ["", f"## {{doc}}`/notebooks/{chapter.name}`", "", *chapter.figures()]
    named = (("verdicts", verdicts), ("times", times), ("figures", figures))
    return {name: "\n".join(lines) for name, lines in named} | errata(everything)


def table(counts: pd.DataFrame) -> list[str]:
    """Return counts as a table in Markdown; what does not occur stays empty."""
    lines = [f"| | {' | '.join(counts.columns)} |", "|---" * (len(counts.columns) + 1) + "|"]
    return lines + [
        f"| {name} | {' | '.join(str(count or '') for count in row)} |" for name, *row in counts.itertuples()
    ]


def errata(everything: list[Chapter]) -> dict[str, str]:
    """Return for each erratum what the chapters recorded about it: statement, number, a link to the cell."""
    recorded = {row["id"]: row for chapter in everything for row in chapter.recorded()}
    lines: dict[str, list[str]] = {}
    with (ROOT / "data" / "published" / "claims.csv").open(newline="", encoding="utf-8") as file:
        for claim in (claim for claim in csv.DictReader(file) if claim["paper"] == "errata"):
            own = lines.setdefault(claim["row"].replace("ERR.", "erratum-"), ["Computed when this book was built:", ""])
            row = recorded.get(claim["id"], {"value": None, "note": "not computed in this build"})
            ends = [row[end] for end in ("value", "low", "high") if row.get(end) is not None]
            whole = bool(ends) and abs(ends[0]) >= 1_000
            number = f"**{ends[0]:{',.0f' if whole else '.3g'}}**" if ends else row["note"] or "a figure"
            number += f" [{ends[1]:.3g}, {ends[2]:.3g}]" if len(ends) == 3 else ""
            if row.get("cell"):
                number += f' (<a href="../notebooks/{row["chapter"]}.html#cell-{row["cell"]}">the cell</a>)'
            own.append(f"- {claim['statement'].rstrip('.')}: {number}.")
    return {name: "\n".join(text) for name, text in lines.items()}
