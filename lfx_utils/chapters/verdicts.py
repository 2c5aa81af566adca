"""The rule: the verdict that follows from a published claim and a number of ours. Pure functions that read nothing.

A verdict is worth what it could have refused. So a number is *reproduced* only where the same test would have refused
the other numbers of its table; a table *agrees* only where few orders of its rows agree as well; an order may fail
wherever it may hold.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05
EXACT = 8  # rows up to which all orders are tried
NUMBERS = ("reproduced", "compatible", "differs")
TABLES = ("agrees", "open", "no power", "reversed")
STATEMENTS = ("holds", "open", "fails")
BESIDE, VOID, DRAWN, ABSENT, PENDING = "side by side", "void", "drawn", "not computable", "not yet recorded"
TESTS = ("passed", "not passed")
ELSEWHERE = " on our encoders"  # where the encoder or the data stand in for the paper's
VERDICTS = (
    "reproduced", "compatible", "differs", BESIDE, "agrees", "agrees" + ELSEWHERE, "reversed", "reversed" + ELSEWHERE,
    "no power", "holds", "holds" + ELSEWHERE, "fails", "fails" + ELSEWHERE, "open", VOID, ABSENT, PENDING, DRAWN,
    *TESTS,
)  # fmt: skip


class Number(NamedTuple):
    """A mean, its standard error, the number of runs behind it, and half a unit of its last printed digit."""

    mean: float
    error: float
    runs: float = math.inf
    rounding: float = 0.0


def printed(number: str, spread: str, runs: float) -> Number:
    """Return a published number: its ± is a standard deviation over `runs`, its rounding half a unit of the last digit.

    >>> printed("0.40", "0.02", 4)
    Number(mean=0.4, error=0.01, runs=4, rounding=0.005)
    """
    digits = len(number.partition(".")[2])
    error = float(spread) / math.sqrt(runs) if spread else 0.0
    return Number(float(number), error, runs if spread else math.inf, 0.5 * 10**-digits)


def measured(value: float, low: float, high: float, runs: int) -> Number:
    """Return a number of ours from its 95 % Student-t interval over `runs`."""
    return Number(value, (high - low) / 2 / stats.t.ppf(0.975, runs - 1), runs)


def welch(first: Number, second: Number) -> float:
    """Return the two-sided p of Welch's test that two means differ by more than their rounding."""
    distance = max(0.0, abs(first.mean - second.mean) - first.rounding - second.rounding)
    parts = [each.error**2 for each in (first, second)]
    if not sum(parts):
        return float(distance < 1e-12)
    shares = sum(part**2 / (each.runs - 1) for part, each in zip(parts, (first, second)))
    freedom = sum(parts) ** 2 / shares if shares else math.inf
    return float(2 * stats.t.sf(distance / math.sqrt(sum(parts)), freedom))


def adjusted(p) -> np.ndarray:
    """Return p-values adjusted for the false discovery rate among them (Benjamini and Hochberg).

    >>> adjusted([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[::-1]
    scaled = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(scaled, 1)
    return result


def numbers(
    ours: list[Number], papers: list[Number], table: list[float], level: float = LEVEL
) -> list[tuple[str, float]]:
    """Judge the numbers of one table.

    *differs*: Welch's test refuses the number, at a false discovery rate of `level` in the table. *reproduced*: it does
    not, and with ours as precise as it is, it would have refused 95 % of the table's other published numbers, their
    mean, and zero. *compatible*: it refuses neither this number nor enough of the others to mean much.

    Args:
        ours, papers: our numbers and the published ones, in the same order.
        table: all numbers that the paper prints in the table, those among them.

    Returns:
        For each number the verdict and its adjusted p.
    """
    p = adjusted([welch(*pair) for pair in zip(ours, papers)])
    strict = level / max(len(ours), 1)  # what the adjustment may come to, whatever the other numbers are
    verdicts = []
    for place, (own, paper) in enumerate(zip(ours, papers)):
        others = list(table)
        others.remove(paper.mean)
        refused = [welch(own._replace(mean=other), paper) <= strict for other in others]
        nulls = [0.0, *([float(np.mean(table))] if others else [])]
        alone = all(welch(own._replace(mean=null), paper) <= strict for null in nulls)
        sharp = alone and (not refused or np.mean(refused) >= 1 - level)
        verdicts.append("differs" if p[place] <= level else "reproduced" if sharp else "compatible")
    return list(zip(verdicts, p.tolist()))


def statement(low: float, high: float, claimed: str = "+") -> str:
    """Judge an order or a sign by the interval of the quantity whose sign is claimed.

    >>> statement(0.1, 0.5), statement(0.1, 0.5, "-"), statement(-0.1, 0.5)
    ('holds', 'fails', 'open')
    """
    low, high = (-high, -low) if claimed == "-" else (low, high)
    return "holds" if low > 0 else "fails" if high < 0 else "open"


def identity(low: float, high: float, tolerance: float) -> str:
    """Judge a residual that should vanish: *holds* within the tolerance, *fails* wholly beyond it, else *open*.

    >>> identity(1e-7, 1e-7, 1e-5), identity(0.1, 0.2, 1e-2), identity(-0.1, 0.2, 1e-2)
    ('holds', 'fails', 'open')
    """
    if -tolerance <= low and high <= tolerance:
        return "holds"
    return "fails" if low > tolerance or high < -tolerance else "open"


class Agreement(NamedTuple):
    """Spearman's rho within strata, its one-sided p, that of the reverse order, the cells, and the verdict."""

    rho: float
    p: float
    reverse: float
    cells: int
    verdict: str


def agreement(strata: list[dict[str, tuple[float, float]]], level: float = LEVEL, draws: int = 20_000) -> Agreement:
    """Judge a table: do its rows rank in ours as in the paper, within each stratum (encoder and data set)?

    rho is the mean over strata of Spearman's rank correlation. Under the hypothesis of no agreement our rows carry any
    names; strata share encoders and images, so names are exchanged in all of them at once: exactly up to eight rows,
    by `draws` random orders beyond. *no power* if not even the best order would reach the level.

    Args:
        strata: for each stratum `{row: (published, ours)}`. Rows that one of them lacks are left out of all.
    """
    rows = sorted(set.intersection(*(set(stratum) for stratum in strata))) if strata else []
    if len(rows) < 2:
        return Agreement(math.nan, math.nan, math.nan, 0, ABSENT)
    table = np.array([[stratum[row] for row in rows] for stratum in strata], dtype=float)
    ranks = stats.rankdata(table, axis=1) - (len(rows) + 1) / 2
    theirs, ours = ranks[..., 0], ranks[..., 1]
    norm = np.sqrt((theirs**2).sum(1) * (ours**2).sum(1))
    weights = theirs / np.where(norm > 0, norm, np.inf)[:, None] / len(strata)  # a stratum of ties ranks nothing
    matrix = weights.T @ ours  # [i, j]: what our row j adds when it stands at the paper's row i
    rhos = matrix[np.arange(len(rows)), orders(len(rows), draws)].sum(1)
    rho, slack, own = float(np.trace(matrix)), 1e-9, int(len(rows) > EXACT)  # the order at hand is one of all
    p, reverse = (float((own + (sign * rhos >= sign * rho - slack).sum()) / (own + len(rhos))) for sign in (1, -1))
    best = [((sign * rhos >= (sign * rhos).max() - slack).sum()) / len(rhos) for sign in (1, -1)]
    verdict = "agrees" if p <= level else "reversed" if reverse <= level else "open"
    verdict = "no power" if min(best) > level else verdict
    return Agreement(rho, p, reverse, len(rows) * len(strata), verdict)


@functools.cache
def orders(rows: int, draws: int) -> np.ndarray:
    """Return all orders of the rows, or `draws` random ones."""
    if rows <= EXACT:
        return np.array(list(itertools.permutations(range(rows))))
    return np.random.default_rng(0).permuted(np.tile(np.arange(rows), (draws, 1)), axis=1)
