"""What pages include and nobody types: verdicts, times, the index of figures, races, the numbers behind the errata."""

import csv
from pathlib import Path

import speed
from chapter import ROOT, Chapter


def generated(everything: list[Chapter]) -> dict[str, str]:
    """Return what pages include: the count of verdicts, each chapter's time, and the index of figures."""
    verdicts = headline(everything[0].records.parent / "scorecard" / "headline.csv")
    times = ["| chapter | seconds | CPU threads |", "|---|---|---|"]
    for chapter in everything:
        made = chapter.past()
        times.append(f"| {{doc}}`/notebooks/{chapter.name}` | {made['seconds']:.0f} | {made['threads']} |")
    figures = []
    for chapter in everything:
        figures += ["", f"## {{doc}}`/notebooks/{chapter.name}`", "", *chapter.figures()]
    held = seeds(ROOT / "data" / "reference" / "seeds.csv")
    named = (("verdicts", verdicts), ("times", times), ("figures", figures), ("seeds", held))
    return {name: "\n".join(lines) for name, lines in named} | errata(everything) | speed.tables()


def seeds(path: Path) -> list[str]:
    """Return by chapter how often the intervals of one run hold the numbers of two others."""
    if not path.is_file():
        return ["The chapters have not been run with several seeds."]
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["chapter"], int(row["held"]), int(row["of"])) for row in csv.DictReader(file)]
    lines = ["| chapter | numbers of other seeds | inside the interval of seed 0 |", "|---|---|---|"]
    lines += [f"| {{doc}}`/notebooks/{name}` | {count} | {hits / count:.0%} |" for name, hits, count in rows]
    hits, count = (sum(row[place] for row in rows) for place in (1, 2))
    return [*lines, f"| all | {count} | {hits / count:.0%} |"]


def headline(path: Path) -> list[str]:
    """Return the scorecard's headline as a table in Markdown, a line a verdict; what does not occur stays empty."""
    if not path.is_file():
        return ["The scorecard has not been executed in this build."]
    with path.open(newline="", encoding="utf-8") as file:
        lines = [[cell if cell != "0" else "" for cell in line] for line in csv.reader(file)]
    turned = [f"| {' | '.join(line)} |" for line in zip(*lines)]
    return [turned[0].replace("claims", "verdict"), "|---" * len(lines) + "|", *turned[1:]]


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
