"""The Completer against entropies by SciPy, every permutation of clusters, and arithmetic by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from lfx_utils.models.completer import Completer, information, joint, named
from lfx_utils.relax import RELAX, Cells


def model(seed=0, **options):
    torch.manual_seed(seed)
    return Completer(**{"latent": 4, "width": 16, "shape": (1, 6, 6)} | options)


def pairs(count=8, seed=0):
    return torch.rand(2, count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------------- information


def test_information_equals_scipy():
    table = np.array([[0.30, 0.05, 0.0], [0.10, 0.20, 0.05], [0.02, 0.08, 0.20]])
    rows, columns = entropy(table.sum(1)), entropy(table.sum(0))
    shared = rows + columns - entropy(table.ravel())
    ours = torch.tensor(table)
    assert information(ours).item() == pytest.approx(shared, rel=1e-6)
    assert information(ours, alpha=9).item() == pytest.approx(shared + 9 * (rows + columns), rel=1e-6)


def test_information_by_hand():
    """Two symbols that agree three times out of four: I = ln 2 − h(1/4)."""
    table = torch.tensor([[3.0, 1.0], [1.0, 3.0]]) / 8
    by_hand = math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    assert information(table).item() == pytest.approx(by_hand, rel=1e-6)
    assert information(table, 2).item() == pytest.approx(by_hand + 4 * math.log(2), rel=1e-6)


def test_information_of_certain_codes_equals_the_clusters():
    """One-hot codes are cluster numbers; without symmetry the table is scikit-learn's contingency table."""
    drawn = np.random.default_rng(0)
    first = drawn.integers(0, 3, 200)
    second = np.where(drawn.random(200) < 0.7, first, drawn.integers(0, 3, 200))
    one, other = (torch.eye(3, dtype=torch.float64)[torch.tensor(each)] for each in (first, second))
    assert information(one.mT @ other / 200).item() == pytest.approx(mutual_info_score(first, second), rel=1e-6)
    both = np.concatenate([first, second]), np.concatenate([second, first])
    assert information(joint(one, other)).item() == pytest.approx(mutual_info_score(*both), rel=1e-6)


def test_joint_is_the_mean_over_pairs():
    first, second = torch.rand(2, 7, 3).softmax(dim=2)
    table = sum(torch.outer(a, b) + torch.outer(b, a) for a, b in zip(first, second, strict=True)) / 14
    assert torch.allclose(joint(first, second), table, atol=1e-6) and joint(first, second).sum() == pytest.approx(1)


def test_more_entropy_is_worth_alpha():
    """All pairs on one symbol agree perfectly and tell nothing; α pays for using every symbol."""
    collapsed, spread = torch.zeros(4, 4), torch.eye(4) / 4
    collapsed[0, 0] = 1
    assert information(collapsed, 9).item() == pytest.approx(0, abs=1e-6)
    assert information(spread, 9).item() == pytest.approx(19 * math.log(4), rel=1e-6)


# --------------------------------------------------------------------------------------------- model


@torch.no_grad()
def test_the_representation_is_two_distributions_side_by_side():
    first, second = pairs()
    one, other = model().eval().codes(first, second)
    assert one.min() > 0 and torch.allclose(one.sum(1), torch.ones(8)) and torch.allclose(other.sum(1), torch.ones(8))
    assert torch.equal(model().eval()(first, second), torch.cat([one, other], dim=1))


@torch.no_grad()
def test_a_missing_view_is_predicted_from_the_other():
    first, second = pairs()
    completer = model().eval()
    whole = completer(first, second)
    without_second, without_first = completer(first), completer(second=second)
    assert torch.equal(without_second[:, :4], whole[:, :4]) and torch.equal(without_first[:, 4:], whole[:, 4:])
    assert torch.equal(without_second[:, 4:], completer.predictors[0](whole[:, :4]))
    assert torch.equal(without_first[:, :4], completer.predictors[1](whole[:, 4:]))


@torch.no_grad()
def test_the_loss_is_the_sum_of_its_parts():
    """Errors by NumPy, information by SciPy."""
    first, second = pairs()
    completer = model().eval()
    one, other = (code.double().numpy() for code in completer.codes(first, second))
    table = (one.T @ other + other.T @ one) / 16
    entropies = 2 * entropy(table.sum(1))
    parts = -(entropies - entropy(table.ravel())) - 3 * entropies
    for k, (mine, theirs, view) in enumerate(((one, other, first), (other, one, second))):
        code = torch.tensor(mine).float()
        parts += 0.2 * ((completer.predictors[k](code).numpy() - theirs) ** 2).mean()
        parts += 0.2 * ((completer.decoders[k](code).numpy() - view.flatten(1).numpy()) ** 2).mean()
    assert completer.loss(first, second, alpha=3, weight=0.2).item() == pytest.approx(parts, rel=1e-5)


def test_training_finds_what_the_views_share():
    """Four kinds of pairs, whose views have nothing but the kind in common, end as four clusters."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(4).repeat(40)
    centres = torch.rand(2, 4, 1, 6, 6, generator=generator)
    first, second = (centres[k][kinds] + 0.3 * torch.randn(160, 1, 6, 6, generator=generator) for k in (0, 1))
    completer = model()
    adam = torch.optim.Adam(completer.parameters(), lr=1e-2)
    for _ in range(60):
        adam.zero_grad()
        completer.loss(first, second).backward()
        adam.step()
    completer.eval()
    with torch.no_grad():
        for views in ((first, second), (first, None), (None, second)):
            clusters = completer(*views)[:, :4].argmax(1)
            assert (named(clusters, kinds) == kinds.numpy()).mean() > 0.95


@torch.no_grad()
def test_relax_masks_each_view_by_itself():
    """A view that the encoder is not given does not matter, and one that it is given does."""
    first, second = pairs(3)
    completer = model().eval()

    def without_second(one, other):
        return completer(one)

    used, unused = RELAX(without_second, Cells(2)).attribute((first, second), n_masks=400)
    assert used.shape == unused.shape == (3, 1, 6, 6)
    alone = RELAX(completer, Cells(2)).attribute(first, n_masks=400)
    assert (used.std((2, 3)) > 3 * unused.std((2, 3))).all()
    assert torch.corrcoef(torch.stack([used.flatten(), alone.flatten()]))[0, 1] > 0.9


# ---------------------------------------------------------------------------------------- clustering


@pytest.mark.parametrize("seed", range(8))
def test_the_match_is_the_best_of_all_permutations(seed):
    drawn = np.random.default_rng(seed)
    labels, clusters = drawn.integers(0, 4, 30), drawn.integers(0, 4, 30)
    best = max((np.array(order)[clusters] == labels).mean() for order in itertools.permutations(range(4)))
    found = named(clusters, labels)
    assert (found == labels).mean() == pytest.approx(best)
    assert len({(a, b) for a, b in zip(clusters, found, strict=True)}) == len(set(clusters)) == len(set(found))


def test_more_clusters_than_labels_leaves_some_without():
    found = named([0, 1, 2, 3], [0, 0, 1, 1])
    assert (found == np.array([0, 0, 1, 1])).sum() == 2


# ------------------------------------------------------------------------------------------ wrong use


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((None, None), "both None"),
        ((pairs(3)[0], pairs(2)[1]), "got 3 of one and 2 of the other"),
        ((pairs(3)[0][..., :5], None), r"first must have shape \(B, 1, 6, 6\), got \(3, 1, 6, 5\)"),
        ((None, pairs(3)[0][0]), r"second must have shape \(B, 1, 6, 6\)"),
    ],
)
def test_wrong_views(views, message):
    with pytest.raises(ValueError, match=message):
        model().eval()(*views)


@pytest.mark.parametrize(("clusters", "labels"), [([], []), ([0, 1], [0]), ([[0]], [[0]])])
def test_wrong_clusters(clusters, labels):
    with pytest.raises(ValueError, match="one each an example"):
        named(clusters, labels)
