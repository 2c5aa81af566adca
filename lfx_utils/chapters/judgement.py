"""Records judged by the rule: each claim's verdict and what it rests on, from one run's records."""

import math
from typing import NamedTuple

import pandas as pd

from lfx_utils.chapters import claims, verdicts
from lfx_utils.chapters.claims import published, stands_in
from lfx_utils.chapters.verdicts import ABSENT, BESIDE, DRAWN, ELSEWHERE, PENDING, VOID, Number

STATEMENTS = ("order", "sign")
CLAIMS = ("table", "value", *STATEMENTS, "equivalence", "uncomputable")  # what a paper asserts and code can fail


class Judged(NamedTuple):
    """A verdict, and what it rests on: a test's p, a table's rho, or why there is none."""

    verdict: str
    basis: str = ""
    rho: float = math.nan


def counted() -> pd.Series:
    """Say of every claim whether the headline counts it: a paper asserts it, and no other row measures the same."""
    table = published()
    return table.kind.isin(CLAIMS) & table.paper.ne("errata") & table.same_as.eq("")


def judge(rows: dict[str, dict]) -> dict[str, Judged]:
    """Judge one run's records; numbers and tables in the company that they are printed in.

    Args:
        rows: records by claim id, as `ledger.record` writes them.

    Returns:
        For every claim that the run recorded, and every table of which it recorded a cell, what follows.
    """
    found = {claim: alone(claims.rows()[claim], row) for claim, row in rows.items()}
    for fit, *compared in comparisons(rows):
        found |= {claim: Judged(said, f"p = {p:.2g}") for claim, (said, p) in zip(fit, verdicts.numbers(*compared))}
    return found | {claim: ranked(group, rows) for claim, group in tables(rows)}


def alone(claim: tuple, row: dict) -> Judged:
    """Judge a record by itself; of a number only whether there is anything to compare."""
    if claim.kind == "figure":
        return Judged(DRAWN)
    if claim.kind in ("uncomputable", "equivalence") or row["value"] is None:
        return Judged(ABSENT, row["note"])
    low, high = ends(row)
    if reason := row.get("void") or below_chance(claim, low):
        return Judged(VOID, reason)
    if claim.kind == "value":
        return Judged(BESIDE)
    if claim.kind == "test":
        return Judged(verdicts.TESTS[not passed(claim, low, high)])
    if claim.kind == "identity":
        said = verdicts.identity(low, high, float(claim.spread))
    else:
        said = verdicts.statement(low, high, claim.published or "+")
    return Judged(placed(said, row), stands_in(row))


def below_chance(claim: tuple, low: float) -> str:
    """Say that a model does not beat a constant, or nothing."""
    if claim.chance and low <= float(claim.chance):
        return f"not above the {claim.chance} {claim.unit} of a constant answer"
    return ""


def passed(claim: tuple, low: float, high: float) -> bool:
    """Say whether a test of our own came out as it should: a sign, or a number within its tolerance."""
    if claim.published in ("+", "-"):
        return verdicts.statement(low, high, claim.published) == "holds"
    return (
        verdicts.identity(low - float(claim.published), high - float(claim.published), float(claim.spread)) == "holds"
    )


def comparisons(rows: dict[str, dict]) -> list[tuple[list[str], list[Number], list[Number], list[float]]]:
    """Return by table the numbers that can be tested against the paper's: what `verdicts.numbers` takes, by claim."""
    cells = published()[lambda table: table.kind.eq("value")]
    found = []
    for _, whole in cells.groupby(cells.table.where(cells.table.ne(""), cells.row)):
        group = whole.loc[[claim for claim in whole.index if claim in rows and comparable(rows[claim])]]
        ours = [verdicts.measured(*(rows[i][part] for part in ("value", "low", "high", "runs"))) for i in group.index]
        papers = [
            verdicts.printed(claim.published, claim.spread, float(claim.runs or "inf")) for claim in group.itertuples()
        ]
        found.append((list(group.index), ours, papers, whole.published.astype(float).tolist()))
    return [each for each in found if each[0]]


def comparable(row: dict) -> bool:
    """Say whether a number can be tested against the paper's: nothing stands in for it, and trainings were repeated."""
    whole = row["profile"] == "paper" and not stands_in(row) and not row.get("void")
    return whole and row["value"] is not None and row["low"] is not None and row.get("runs", 0) > 1


def tables(rows: dict[str, dict]) -> list[tuple[str, pd.DataFrame]]:
    """Return the tables of which a run recorded a cell, each with its recorded cells."""
    cells = published()[lambda table: table.table.ne("") & table.index.isin(rows)]
    return list(cells.groupby("table", sort=False))


def strata(group: pd.DataFrame, rows: dict[str, dict]) -> list[list[str]]:
    """Return a table's cells by stratum, for the strata without a missing or void cell.

    A cell that the run did not record is missing, too. Where every stratum has one, those are taken that keep more than
    half of their cells.
    """
    found, printed = [], published()[lambda table: table.table.isin(group.table)].stratum.value_counts()
    for name, stratum in group.groupby("stratum"):
        judged = {claim: alone(claims.rows()[claim], rows[claim]).verdict for claim in stratum.index}
        fit = [claim for claim, verdict in judged.items() if verdict == BESIDE]
        found.append((len(fit) / printed[name], fit))
    whole = any(share == 1 for share, _ in found)
    return [fit for share, fit in found if share == 1 or not whole and share > 0.5]


def pairs(group: pd.DataFrame, rows: dict[str, dict]) -> list[dict[str, tuple[float, float]]]:
    """Return by stratum the published number and ours, by the table's row; what `verdicts.agreement` takes."""
    used = strata(group, rows)
    return [{group.item[i]: (float(group.published[i]), rows[i]["value"]) for i in stratum} for stratum in used]


def ranked(group: pd.DataFrame, rows: dict[str, dict]) -> Judged:
    """Judge a table by the order of its rows."""
    result = verdicts.agreement(pairs(group, rows))
    if result.verdict == ABSENT:
        each = [alone(claims.rows()[claim], rows[claim]) for claim in group.index]
        return next((one for one in each if one.verdict == VOID), each[0])
    apart = max((rows[claim] for claim in group.index), key=lambda row: bool(stands_in(row)))
    basis = f"ρ = {result.rho:.2f}, p = {min(result.p, result.reverse):.2g}, {result.cells} cells"
    return Judged(placed(result.verdict, apart), basis, result.rho)


def ends(row: dict) -> tuple[float, float]:
    """Return the ends of a record's interval; those of a number without one are the number itself."""
    return (row["value"], row["value"]) if row["low"] is None else (row["low"], row["high"])


def placed(verdict: str, row: dict) -> str:
    """Add to a decided verdict that it holds for stand-ins, if it does."""
    decided = verdict in ("agrees", "reversed", "holds", "fails")
    return verdict + ELSEWHERE if decided and stands_in(row) else verdict


def missing(claim: str) -> Judged:
    """Return the verdict on a claim that no run at hand recorded."""
    return Judged(PENDING, published().why[claim] or "This run does not include it.")
