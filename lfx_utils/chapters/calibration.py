"""What the rule says when it is fed with numbers that have nothing to do with the claim: how often would it say yes?"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from lfx_utils.chapters import judgement, verdicts

Wrong = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def another(papers: np.ndarray, ours: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """For each cell the published number of another cell of the table, drawn at random."""
    return papers[(np.arange(len(papers)) + random.integers(1, max(len(papers), 2), len(papers))) % len(papers)]


FEEDS: dict[str, Wrong] = {
    "ours": lambda papers, ours, random: ours,
    "another cell's number": another,
    "the table's mean": lambda papers, ours, random: np.full(len(papers), papers.mean()),
    "permuted numbers": lambda papers, ours, random: random.permutation(ours),
    "random numbers": lambda papers, ours, random: random.normal(ours.mean(), ours.std(), len(ours)),
}


def rates(rows: dict[str, dict], repeats: int = 20, seed: int = 0) -> pd.DataFrame:
    """Return how often the rule says yes to our numbers and to wrong ones in their place.

    Args:
        rows: records by claim id. Their intervals and numbers of runs stay, so that wrong numbers look as sure as ours.
        repeats: how often each table is fed.
        seed: of the draws.

    Returns:
        A row for each way to be wrong; the share of tables that agree, among those where they could, and of numbers
        that are reproduced or compatible, among those that are tested.
    """
    found = {}
    tables = [judgement.pairs(group, rows) for _, group in judgement.tables(rows)]
    tables = [table for table in tables if verdicts.agreement(table).verdict not in ("no power", verdicts.ABSENT)]
    tested = [compared for _, *compared in judgement.comparisons(rows)]
    for name, wrong in FEEDS.items():
        random, often = np.random.default_rng(seed), 1 if name in ("ours", "the table's mean") else repeats
        ranks = [verdicts.agreement(fed(table, wrong, random)).verdict for table in tables for _ in range(often)]
        said = [verdict for compared in tested for _ in range(often) for verdict in judged(*compared, wrong, random)]
        found[name] = {
            "tables that agree": np.mean([verdict == "agrees" for verdict in ranks]),
            "numbers reproduced": np.mean([verdict == "reproduced" for verdict in said]),
            "numbers compatible": np.mean([verdict == "compatible" for verdict in said]),
        }
    return pd.DataFrame(found).T


def fed(table: list[dict], wrong: Wrong, random: np.random.Generator) -> list[dict]:
    """Return a table whose own numbers are replaced."""
    cells = np.array([pair for stratum in table for pair in stratum.values()])
    numbers = iter(wrong(cells[:, 0], cells[:, 1], random))
    return [{row: (paper, next(numbers)) for row, (paper, _) in stratum.items()} for stratum in table]


def judged(ours: list, papers: list, table: list, wrong: Wrong, random: np.random.Generator) -> list[str]:
    """Return the verdicts on numbers in place of ours."""
    means = (np.array([each.mean for each in side]) for side in (papers, ours))
    replaced = [own._replace(mean=mean) for own, mean in zip(ours, wrong(*means, random))]
    return [verdict for verdict, _ in verdicts.numbers(replaced, papers, table)]
