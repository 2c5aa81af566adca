"""The tables of the page "How fast", from what `make bench` and the script for a GPU wrote."""

import json
from collections.abc import Mapping
from pathlib import Path

from chapter import ROOT

FOLDER = ROOT / "data" / "benchmarks"
KEPT = ("job", "seconds", "versions", "machine", "threads", "date")
LIMIT = "the encoder alone"  # no program that one could use instead


def tables(folder: Path = FOLDER) -> dict[str, str]:
    """Return the table of races, their other facts, the peers to prefer, how they were run, the GPU's, the hours."""
    rows = read(folder / "cpu.json") or []
    named = {
        "speed-table": races(rows),
        "speed-facts": facts(rows),
        "speed-prefer": prefer(rows),
        "speed-run": run(rows),
        "speed-gpu": gpu(read(folder / "gpu.json")),
        "speed-settings": settings(read(folder / "settings.json")),
    }
    return {name: "\n".join(lines) for name, lines in named.items()}


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def ours(row: Mapping) -> tuple[str, float]:
    """Return the first contender, which is ours, and its seconds."""
    return next(iter(row["seconds"].items()))


def peers(row: Mapping) -> dict[str, float]:
    """Return the seconds of what ours is compared with, the fastest first: other programs, or the encoder alone."""
    known = ("ours", "one search", "10 shards", "plain gradients")
    others = {name: value for name, value in row["seconds"].items() if not name.startswith(known)}
    return dict(sorted(others.items(), key=lambda each: each[1]))


def races(rows: list[Mapping]) -> list[str]:
    if not rows:
        return ["`make bench` has not been run."]
    lines = ["| job | ours, s | fastest peer or limit | its s | ours / its |", "|---|---|---|---|---|"]
    for row in rows:
        mine, others = ours(row)[1], peers(row)
        name, theirs = next(iter(others.items()), ("", None))
        ratio = f"| {theirs:.3g} | {mine / theirs:.2f} |" if theirs else "| | |"
        lines.append(f"| {row['job']} | {mine:.3g} | {name} {ratio}")
    return lines


def prefer(rows: list[Mapping]) -> list[str]:
    """Say where a peer is faster by a tenth or more."""
    behind = []
    for row in rows:
        mine, others = ours(row)[1], peers(row)
        others = {name: seconds for name, seconds in others.items() if not name.startswith(LIMIT)}
        name, theirs = next(iter(others.items()), ("", None))
        if theirs and mine > 1.1 * theirs:
            behind.append(f"- {row['job']}: **{name}**; ours takes {mine / theirs:.1f} times as long.")
    return behind or ["In none of the jobs above was a peer faster by a tenth or more."]


def facts(rows: list[Mapping]) -> list[str]:
    lines = []
    for row in rows:
        for name, value in row.items():
            if name not in KEPT:
                lines.append(f"- {row['job']}; {name}: {said(value)}.")
    return lines or ["Nothing else was measured."]


def said(value) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {said(each)}" for name, each in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)


def run(rows: list[Mapping]) -> list[str]:
    machines = sorted({f"{row['machine']}, {row['threads']} thread(s), {row['date']}" for row in rows})
    versions = sorted({f"{name} {number}" for row in rows for name, number in row["versions"].items()})
    return [f"Measured on: {'; '.join(machines)}. Versions: {', '.join(versions)}."] if rows else []


def gpu(found: Mapping | None) -> list[str]:
    if found is None:
        return ["**Not yet run on a GPU.**"]
    lines = [f"Run on {found['device']} with torch {found['torch']}.", ""]
    parts = {name: part for name, part in found.items() if isinstance(part, Mapping)}
    return lines + [f"- {name}; {said(part)}." for name, part in parts.items()]


def settings(found: Mapping | None) -> list[str]:
    """Return what the papers' settings would take, hours of one core each."""
    if found is None:
        return ["`python -m benchmarks.settings` has not been run."]
    lines = ["| setting | one step, ms | steps | trainings | hours of one core |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        numbers = f"{1e3 * row['step']:.3g} | {row['steps']:,} | {row['trainings']} | {row['hours']:,.1f}"
        lines.append(f"| {row['setting']} | {numbers} |")
    about = f"Measured on: {found['machine']}, {found['threads']} thread, torch {found['torch']}, {found['date']}."
    return [*lines, "", about]
