"""Overlap of maps and disentanglement of units: hand-made cases, SciPy one pair at a time, exact permutations."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from lfx_utils.measures import disentanglement, overlap


def maps(seed=0, shape=(300, 4, 5, 6)):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    values[:, 1] += 0.7 * values[:, 0] + 2
    values[:, 2] -= 0.4 * values[:, 1]
    return values


def pairs(units):
    return [(i, j) for i in range(units) for j in range(i)]


# Overlap of maps


def test_pearson_against_numpy():
    values = maps()
    matrix = np.corrcoef(values.numpy().swapaxes(0, 1).reshape(4, -1).astype(float))
    assert overlap.pearson(values) == pytest.approx(np.mean([matrix[pair] for pair in pairs(4)]), abs=1e-6)


def test_cosine_one_pair_and_one_example_at_a_time():
    values = maps(shape=(270, 3, 4))
    values[5, 0] = 0
    expected = []
    for i, j in pairs(3):
        both = [(a.numpy(), b.numpy()) for a, b in zip(values[:, i], values[:, j], strict=True) if a.any() and b.any()]
        expected.append(np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in both]))
    assert overlap.cosine(values) == pytest.approx(np.mean(expected), abs=1e-5)


def test_entropy_and_units_per_pixel():
    one_each, alike = torch.zeros(2, 3, 6), torch.ones(2, 3, 6)
    for unit in range(3):
        one_each[:, unit, 2 * unit : 2 * unit + 2] = -unit - 1.0
    assert overlap.entropy(one_each) == 0 and overlap.units_per_pixel(one_each) == 1
    assert overlap.entropy(alike) == pytest.approx(math.log(3)) and overlap.units_per_pixel(alike) == 0
    mixed = torch.tensor([[[3.0, 0.0, 2.0], [-1.0, 0.0, 2.0]]])  # the pixel that matters to none is left out
    assert overlap.entropy(mixed) == pytest.approx((stats.entropy([0.75, 0.25]) + math.log(2)) / 2)
    assert overlap.units_per_pixel(mixed) == 0.5
    values = maps().abs().numpy().transpose(0, 2, 3, 1).reshape(-1, 4)
    assert overlap.entropy(maps()) == pytest.approx(stats.entropy(values, axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("dead", [0.0, 1e-9])
def test_a_collapsed_unit_is_counted_and_left_out(dead):
    values = maps()
    with_dead = torch.cat([values[:, :2], dead * torch.ones_like(values[:, :1]), values[:, 2:]], 1)
    assert overlap.collapsed(with_dead).tolist() == [False, False, True, False, False]
    assert not overlap.collapsed(values).any()
    for measure in (overlap.pearson, overlap.cosine, overlap.entropy):
        assert measure(with_dead) == pytest.approx(measure(values), abs=1e-6)
    single = torch.cat([values[:, :1], torch.zeros_like(values[:, :2])], 1)
    assert math.isnan(overlap.pearson(single)) and math.isnan(overlap.cosine(single)) and overlap.entropy(single) == 0


def test_maps_without_any_unit():
    nothing = torch.zeros(3, 2, 4)
    assert overlap.collapsed(nothing).all() and math.isnan(overlap.pearson(nothing))
    with pytest.raises(ValueError, match="zero for every unit"):
        overlap.entropy(nothing)


@pytest.mark.parametrize("bad", [torch.zeros(3, 2), torch.zeros(0, 2, 4), torch.full((3, 2, 4), math.nan), [1.0]])
def test_impossible_maps(bad):
    with pytest.raises(ValueError, match="maps"):
        overlap.pearson(bad)


def test_units_with_patterns_of_their_own_are_recognised():
    windows = (torch.rand(80, 1, 30, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    patterns = torch.randn(1, 3, 30, generator=torch.Generator().manual_seed(1)).sign()
    assert overlap.recognised(windows * patterns) > 0.97  # signs tell the units apart, …
    assert 0.2 < overlap.recognised((windows * patterns).abs()) < 0.5  # … places alone do not
    assert overlap.recognised(windows * patterns * torch.rand(80, 3, 1)) > 0.97  # whatever their sizes
    assert math.isnan(overlap.recognised(windows * torch.tensor([1.0, 0.0, 0.0])[:, None]))


def test_active_units():
    means = torch.stack([torch.linspace(-1, 1, 50), torch.full((50,), 0.3), 0.05 * torch.linspace(-1, 1, 50)], 1)
    assert overlap.active_units(means).tolist() == [True, False, False]


# Rank correlation


def test_spearman_against_scipy_and_all_permutations():
    levels, values = [1, 1, 5, 5, 10, 10, 10], [0.3, 0.1, 0.4, 0.35, 0.2, 0.6, 0.7]
    found = overlap.spearman(levels, values, draws=20_000)
    assert found.rho == pytest.approx(stats.spearmanr(levels, values).statistic)
    everyone = np.array([stats.spearmanr(order, values).statistic for order in set(permutations(levels))])
    assert found.null == pytest.approx(np.quantile(everyone, [0.025, 0.975]), abs=0.06)
    assert found.p == pytest.approx((abs(everyone) >= abs(found.rho) - 1e-9).mean(), abs=0.02)
    assert -1 <= found.low < found.rho < found.high <= 1


def test_spearman_leaves_out_models_without_a_value():
    full = overlap.spearman([1, 1, 5, 5, 10, 10], [1.0, 2.0, 3.0, 2.5, 4.0, 5.0])
    assert overlap.spearman([1, 1, 5, 5, 10, 10, 10], [1.0, 2.0, 3.0, 2.5, 4.0, 5.0, math.nan]) == full
    assert full == overlap.spearman([1, 1, 5, 5, 10, 10], [1.0, 2.0, 3.0, 2.5, 4.0, 5.0])
    assert full.low > 0.5 and full.p < 0.1


def test_spearman_is_rarely_sure_of_nothing():
    # Independent values: about one in twenty must fall out of the permutation interval.
    rng, levels, outside = np.random.default_rng(0), np.repeat([1, 5, 10], 6), 0
    for trial in range(200):
        found = overlap.spearman(levels, rng.standard_normal(18), draws=300, seed=trial)
        outside += not found.null[0] <= found.rho <= found.null[1]
    assert 2 <= outside <= 22


def test_spearman_against_another_measure():
    # No two models share a level: pairs are resampled, as they are for a correlation of two measurements.
    rng = np.random.default_rng(0)
    levels = rng.standard_normal(40)
    values = levels + 0.5 * rng.standard_normal(40)
    found = overlap.spearman(levels, values)
    usual = stats.bootstrap(
        (levels, values), lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True, vectorized=False, method="percentile", n_resamples=999, rng=1,
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((usual.low, usual.high), abs=0.04)
    assert found.low < found.rho < found.high


@pytest.mark.parametrize(
    "levels, values", [([1, 5], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4]), ([1, 2, 3], [1, math.nan, 2])]
)
def test_no_rank_correlation(levels, values):
    with pytest.raises(ValueError, match="at least three models, two levels and two values"):
        overlap.spearman(levels, values)
    with pytest.raises(ValueError, match="equal length"):
        overlap.spearman(levels, values[:-1])


# Disentanglement


@pytest.fixture(scope="module")
def factors():
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(0, levels, (3_000,), generator=generator) for levels in (4, 5)], 1)


def noise(rows, columns, seed=1):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_a_unit_for_each_factor_scores_one(factors):
    codes = torch.cat([3 * factors.flip(1).float() + 1, torch.full((3_000, 1), 0.5)], 1)  # and a collapsed unit
    gaps = disentanglement.mig(codes, factors)
    assert gaps == pytest.approx([1, 1], abs=0.01)
    found = disentanglement.dci(codes, factors)
    assert min(found.disentanglement, found.completeness) > 0.999 and found.informativeness == 1
    assert found.importance.argmax(0).tolist() == [1, 0] and found.importance[2].max() == 0


def test_a_rotated_code_is_not_disentangled(factors):
    centred = factors.float() - factors.float().mean(0)
    centred = centred / centred.std(0)
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / 2**0.5
    found = disentanglement.dci(centred @ turn, factors)
    assert disentanglement.mig(centred @ turn, factors).max() < 0.1
    assert found.disentanglement < 0.1 and found.completeness < 0.1 and found.informativeness > 0.95


def test_an_independent_code_knows_nothing(factors):
    codes = noise(3_000, 3)
    assert disentanglement.mutual_information(codes, factors).max() < 0.03
    assert disentanglement.mig(codes, factors).max() < 0.02
    assert disentanglement.dci(codes, factors).informativeness < 0.35  # 1/4 and 1/5 by chance


def test_two_units_that_share_a_factor(factors):
    twice = torch.stack([factors[:, 0].float(), factors[:, 0].float(), factors[:, 1].float()], 1)
    gaps = disentanglement.mig(twice, factors)
    assert gaps[0] == 0 and gaps[1] > 0.98
    found = disentanglement.dci(twice, factors)
    assert found.disentanglement > 0.999 and found.completeness < 0.85


def test_mutual_information_by_hand():
    factors = torch.tensor([[0, 0, 1, 1]] * 2).reshape(-1, 1).repeat(1, 2)
    codes = torch.stack([factors[:, 0].float(), torch.tensor([0.0, 1.0] * 4)], 1)
    assert disentanglement.mutual_information(codes, factors) == pytest.approx(
        np.array([[math.log(2)] * 2, [0, 0]]), abs=1e-12
    )


def test_impossible_codes(factors):
    codes = noise(3_000, 2)
    for bad in (codes[:9], codes[:, :1], codes[:, 0]):
        with pytest.raises(ValueError, match=r"codes must be \(N, D ≥ 2\) and factors \(N, K\)"):
            disentanglement.mig(bad, factors)
    with pytest.raises(ValueError, match="NaN"):
        disentanglement.mig(codes / 0, factors)
    with pytest.raises(ValueError, match="two levels at least; column 1 of factors"):
        disentanglement.mig(codes, factors * torch.tensor([1, 0]))
    for arguments in ((codes, factors[:, :1]), (torch.ones(3_000, 2), factors)):
        with pytest.raises(ValueError, match="DCI needs two factors"):
            disentanglement.dci(*arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_codes_in_half_precision_are_measured_as_their_values(dtype):
    factors = torch.cartesian_prod(torch.arange(4), torch.arange(3)).repeat(20, 1)
    codes = (factors + 0.1 * torch.rand(len(factors), 2, generator=torch.Generator().manual_seed(0))).to(dtype)
    assert np.array_equal(disentanglement.mig(codes, factors), disentanglement.mig(codes.float(), factors))
    assert (
        disentanglement.dci(codes, factors).disentanglement
        == disentanglement.dci(codes.float(), factors).disentanglement
        > 0.9
    )


def test_factors_that_are_no_levels_and_too_few_examples():
    with pytest.raises(ValueError, match="factors must hold integers"):
        disentanglement.mig(torch.rand(20, 2), torch.rand(20, 2))
    with pytest.raises(ValueError, match="five examples, a fifth of which are the test; got 2 factors and 4"):
        disentanglement.dci(torch.rand(4, 2), torch.tensor([[0, 1], [1, 0], [0, 0], [1, 1]]))
