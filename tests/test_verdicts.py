"""The rule: every verdict can come out, nearer is never worse, either sign counts alike, chance seldom passes."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lfx_utils.chapters import calibration, verdicts
from lfx_utils.chapters.ledger import DATA, read
from lfx_utils.chapters.verdicts import Number, agreement, identity, measured, numbers, printed, statement, welch

RANDOM = np.random.default_rng(0)


def single(order):
    """A table of one stratum whose rows the paper ranks 0, 1, 2, … and we rank as `order`."""
    return agreement([{str(row): (row, own) for row, own in enumerate(order)}])


def test_every_verdict_can_come_out():
    sharp, blunt = Number(0.4, 0.001, 5), Number(0.4, 0.05, 5)
    papers = [printed(number, "0.01", 5) for number in ("0.40", "0.30", "0.20")]
    rest = [each._replace(rounding=0.0) for each in papers[1:]]
    said = {
        numbers([own, *rest], papers, [each.mean for each in papers])[0][0]
        for own in (sharp, blunt, sharp._replace(mean=0.5))
    }
    assert said == set(verdicts.NUMBERS)
    assert {statement(*ends) for ends in ((1, 2), (-1, 1), (-2, -1))} == set(verdicts.STATEMENTS)
    assert {identity(*ends, 0.1) for ends in ((0, 0.05), (0, 1), (0.5, 1))} == set(verdicts.STATEMENTS)
    tables = single(range(5)), single([2, 0, 4, 1, 3]), single(range(3)), single(range(5)[::-1])
    assert {table.verdict for table in tables} == set(verdicts.TABLES)


def test_welch_is_scipys_where_both_samples_are_at_hand():
    first, second = RANDOM.normal(0, 1, 5), RANDOM.normal(1, 3, 8)
    ours, theirs = (Number(each.mean(), stats.sem(each), len(each)) for each in (first, second))
    assert welch(ours, theirs) == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    low, high = stats.t.interval(0.95, 4, first.mean(), stats.sem(first))
    assert measured(first.mean(), low, high, 5) == pytest.approx(ours)


def test_a_printed_number_is_known_to_half_a_unit_and_its_spread_is_over_runs():
    assert printed("0.40", "0.02", 4) == (0.4, 0.01, 4, 0.005)
    assert printed("26492", "", 5) == (26492, 0, math.inf, 0.5)
    assert (
        welch(Number(0.4049, 0), printed("0.40", "", 5)) == 1 and welch(Number(0.406, 0), printed("0.40", "", 5)) == 0
    )


def test_adjusted_p_values_are_scipys():
    p = RANDOM.uniform(size=20) ** 2
    assert verdicts.adjusted(p) == pytest.approx(stats.false_discovery_control(p))


@pytest.mark.parametrize("error", [0.001, 0.01, 0.03, 0.2])
def test_a_number_nearer_to_the_papers_is_never_worse(error):
    papers = [printed(number, spread, 5) for number, spread in (("0.40", "0.01"), ("0.31", "0.02"), ("0.44", ""))]
    rest = [Number(0.3, 0.02, 5), Number(0.44, 0.02, 5)]

    def judged(*ours):
        return numbers(ours, papers, [0.40, 0.31, 0.44])[0][0]

    for side in (-1, 1):
        said = [judged(Number(0.4 + side * off, error, 5), *rest) for off in np.linspace(0.5, 0, 60)]
        assert [verdicts.NUMBERS.index(each) for each in said] == sorted(map(verdicts.NUMBERS.index, said))[::-1]


def test_an_order_further_on_the_claimed_side_is_never_worse_and_either_sign_counts_alike():
    for width in (0.0, 0.5, 2.0):
        said = [statement(middle - width, middle + width) for middle in np.linspace(-3, 3, 61)]
        ranks = [verdicts.STATEMENTS.index(each) for each in said]
        assert ranks == sorted(ranks)[::-1]
        mirrored = [statement(-middle - width, -middle + width, "-") for middle in np.linspace(-3, 3, 61)]
        assert said == mirrored
    assert statement(-2, -1e-9) == "fails"  # wholly against the claim is never open


def test_a_residual_nearer_to_zero_is_never_worse_and_either_sign_counts_alike():
    for width in (0.0, 0.05, 0.3):
        said = [identity(middle - width, middle + width, 0.1) for middle in np.linspace(1, 0, 41)]
        ranks = [verdicts.STATEMENTS.index(each) for each in said]
        assert ranks == sorted(ranks)[::-1]
        assert said == [identity(-middle - width, -middle + width, 0.1) for middle in np.linspace(1, 0, 41)]


def test_a_table_in_better_agreement_is_never_worse_and_the_reverse_order_is_as_strong():
    scale = ("reversed", "open", "agrees")
    tables = sorted((single(order) for order in itertools.permutations(range(5))), key=lambda table: table.rho)
    ranks = [scale.index(table.verdict) for table in tables]
    assert ranks == sorted(ranks) and set(ranks) == {0, 1, 2}
    turned = {"reversed": "agrees", "agrees": "reversed", "open": "open"}
    for order in itertools.permutations(range(5)):
        own, other = single(order), single([-each for each in order])
        assert (other.verdict, other.p) == (turned[own.verdict], pytest.approx(own.reverse))


def test_agreement_is_spearmans_rho_with_its_exact_p():
    paper, ours = RANDOM.normal(size=(2, 6))
    table = agreement([{str(row): pair for row, pair in enumerate(zip(paper, ours))}])
    orders = [stats.spearmanr(paper, each).statistic for each in itertools.permutations(ours)]
    assert table.rho == pytest.approx(stats.spearmanr(paper, ours).statistic)
    assert table.p == pytest.approx(np.mean(np.array(orders) >= table.rho - 1e-9))


def test_strata_share_their_rows_so_that_copies_add_no_evidence():
    one = {row: pair for row, pair in zip("abcdef", zip(range(6), [0, 2, 1, 3, 5, 4]))}
    assert agreement([one]).p == agreement([one] * 8).p
    assert agreement([one, dict.fromkeys("abcdef", (1, 1))]).rho == pytest.approx(agreement([one]).rho / 2)
    assert math.isnan(agreement([]).rho) and agreement([]).verdict == "not computable"


@pytest.mark.parametrize("rows", [5, 6, 10])
def test_chance_passes_a_table_in_at_most_one_case_of_twenty(rows):
    said = [
        agreement(
            [dict(enumerate(zip(range(rows), own))) for own in RANDOM.normal(size=(4, rows))], draws=2_000
        ).verdict
        for _ in range(400)
    ]
    assert np.mean([each == "agrees" for each in said]) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_chance_passes_an_order_in_at_most_one_case_of_twenty():
    intervals = [measured_interval(RANDOM.normal(size=5)) for _ in range(2_000)]
    assert np.mean([statement(*ends) == "holds" for ends in intervals]) < 0.05
    assert np.mean([statement(*ends) == "fails" for ends in intervals]) < 0.05


def measured_interval(sample):
    return stats.t.interval(0.95, len(sample) - 1, sample.mean(), stats.sem(sample))


def test_fed_with_wrong_numbers_the_rule_says_yes_in_at_most_one_case_of_twenty():
    rows = {}
    for path in (DATA / "results").glob("*.json"):
        rows |= read(path)
    rates = calibration.rates(rows, repeats=20)
    assert {"another cell's number", "the table's mean", "permuted numbers"} <= set(rates.index)
    wrong, noise = rates.drop("ours"), 3 * math.sqrt(0.05 * 0.95 / (20 * 30))  # of at least 30 tables, fed 20 times
    assert (wrong["tables that agree"] <= 0.05 + noise).all() and (wrong["numbers reproduced"] <= 0.05).all()
    assert rates.loc["ours", "tables that agree"] > 0.25  # and it can say yes
