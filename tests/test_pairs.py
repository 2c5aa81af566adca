"""Pairs against closed forms, LabelFree, sums over all features by hand, and their own sums."""

import itertools

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from lfx_utils.features import LabelFree, Normed, decompose, interactions, patches

MODES = pytest.mark.parametrize("forward_mode", [True, False])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def smooth(features: int = 6, units: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 8), nn.Tanh(), nn.Linear(8, units)).double().eval()


@MODES
def test_of_a_linear_encoder_is_the_bilinear_form(forward_mode):
    encoder = nn.Linear(5, 3, bias=False).eval()
    x, y = torch.rand(4, 5), torch.rand(4, 5)
    found = interactions(*(decompose(encoder, z, n_steps=2, forward_mode=forward_mode) for z in (x, y)))
    form = encoder.weight.T @ encoder.weight
    assert torch.allclose(found.matrix, x[:, :, None] * form * y[:, None], atol=1e-6)
    assert found.alone_x.abs().max() == found.alone_y.abs().max() == found.constant.abs().max() == 0
    assert found.residual.abs().max() < 1e-6


def test_of_an_affine_encoder_gives_the_bias_to_the_baselines():
    encoder = nn.Linear(5, 3).eval()
    x, y, a = torch.rand(3, 1, 5)
    found = interactions(decompose(encoder, x, a), decompose(encoder, y))
    gap, weight = x - a, encoder.weight
    assert torch.allclose(found.matrix[0], gap.T * (weight.T @ weight) * y, atol=1e-6)
    assert torch.allclose(found.alone_x, gap * (encoder.bias @ weight), atol=1e-6)
    assert torch.allclose(found.alone_y, y * (encoder(a) @ weight), atol=1e-6)
    assert torch.allclose(found.constant, (encoder(a) * encoder.bias).sum(1), atol=1e-6)


def test_of_a_quadratic_encoder_is_what_the_integral_gives():
    """For f(x) = (Σ x)², ∂f/∂x_p along t x is 2 t Σ x, so that c_p = x_p Σ x; two points integrate t exactly."""
    x, y = torch.rand(1, 4), torch.rand(1, 4)

    def square(z):
        return z.sum(1, keepdim=True).square()

    found = interactions(decompose(square, x, n_steps=2), decompose(square, y, n_steps=2))
    assert torch.allclose(found.matrix[0], x.T * x.sum() * y.sum() * y)


@MODES
def test_against_a_double_loop_over_features_and_units(forward_mode):
    encoder = smooth()
    x, a = torch.rand(2, 3, 6, dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(7)
    by_hand = torch.zeros(3, 6, 4, dtype=torch.float64)
    for row, unit in itertools.product(range(3), range(4)):
        for node, weight in zip(nodes, weights):
            point = (a[row] + (1 + node) / 2 * (x[row] - a[row])).requires_grad_()
            (gradient,) = torch.autograd.grad(encoder(point[None])[0, unit], point)
            by_hand[row, :, unit] += weight / 2 * gradient * (x[row] - a[row])
    found = decompose(encoder, x, a, n_steps=7, forward_mode=forward_mode)
    assert torch.allclose(found.parts, by_hand, atol=1e-12)


@MODES
def test_parts_pool_features(forward_mode):
    encoder, x = nn.Sequential(nn.Flatten(), smooth(24)).eval(), torch.rand(3, 1, 4, 6, dtype=torch.float64)
    number = patches(4, 6, 2, 3)
    alone = decompose(encoder, x, n_steps=3, forward_mode=forward_mode).parts
    pooled = decompose(encoder, x, parts=number, n_steps=3, forward_mode=forward_mode).parts
    by_hand = torch.stack([alone[:, number.flatten() == part].sum(1) for part in range(6)], dim=1)
    assert torch.allclose(pooled, by_hand, atol=1e-12)


def test_is_symmetric_in_its_two_inputs():
    encoder = smooth()
    x, y = (decompose(encoder, z, n_steps=5) for z in torch.rand(2, 3, 6, dtype=torch.float64))
    one, other = interactions(x, y), interactions(y, x)
    assert torch.allclose(one.matrix, other.matrix.mT) and torch.allclose(one.alone_x, other.alone_y)
    assert torch.allclose(one.to_x, other.to_y) and torch.allclose(one.residual, other.residual)


@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_of_an_input_with_itself_is_labelfree(baseline):
    encoder, x = smooth(), torch.rand(3, 6, dtype=torch.float64)
    found = decompose(encoder, x, baseline, n_steps=40)
    maps = LabelFree(IntegratedGradients, encoder).attribute(x, baseline, n_steps=40)
    assert torch.allclose(interactions(found, found).to_x, maps, atol=1e-10)


def test_rows_are_labelfree_with_the_other_inputs_parts_as_weights():
    encoder, (x, y) = smooth(), torch.rand(2, 1, 6, dtype=torch.float64)
    of_x, of_y = (decompose(encoder, z, n_steps=9) for z in (x, y))
    explain = LabelFree(IntegratedGradients, encoder).attribute
    rows = [explain(y, 0.0, weights=of_x.parts[0, p], n_steps=9)[0] for p in range(6)]
    assert torch.allclose(interactions(of_x, of_y).matrix[0], torch.stack(rows), atol=1e-12)


def test_terms_add_up_and_the_residual_falls_with_the_steps():
    encoder, (x, y) = smooth(), 3 * torch.rand(2, 5, 6, dtype=torch.float64)
    left = []
    for steps in (1, 3, 40):
        of_x, of_y = (decompose(encoder, z, 1.0, n_steps=steps) for z in (x, y))
        found = interactions(of_x, of_y)
        total = found.to_x.sum(1) + found.alone_y.sum(1) + found.constant + found.residual
        assert torch.allclose(total, (encoder(x) * encoder(y)).sum(1), atol=1e-12)
        left.append(found.residual.abs().max().item())
        assert torch.allclose(of_x.parts.sum(1) + of_x.residual, encoder(x) - encoder(torch.ones_like(x)), atol=1e-12)
    assert left[0] > left[1] > 1e-9 > left[2]


def test_cosine_divides_by_the_lengths_and_normed_explains_them():
    encoder, (x, y) = smooth(), torch.rand(2, 3, 6, dtype=torch.float64)
    of_x, of_y = decompose(encoder, x), decompose(encoder, y)
    found, plain = interactions(of_x, of_y, cosine=True), interactions(of_x, of_y)
    lengths = encoder(x).norm(dim=1) * encoder(y).norm(dim=1)
    assert torch.allclose(found.similarity, torch.cosine_similarity(encoder(x), encoder(y)))
    assert torch.allclose(found.matrix * lengths[:, None, None], plain.matrix)
    unit = interactions(decompose(Normed(encoder), x), decompose(Normed(encoder), y))
    assert torch.allclose(unit.similarity, found.similarity) and not torch.allclose(
        unit.matrix, found.matrix, atol=1e-3
    )


def test_one_input_meets_many():
    encoder = smooth()
    many = decompose(encoder, torch.rand(4, 6, dtype=torch.float64), n_steps=4)
    found = interactions(many[:1], many)
    for row in range(4):
        assert torch.allclose(found.matrix[row], interactions(many[[0]], many[[row]]).matrix[0])


@MODES
@pytest.mark.parametrize("bound", [1, 5, 1_000])
def test_bound_changes_nothing_and_holds(forward_mode, bound):
    inner, x, seen = smooth(), torch.rand(3, 6, dtype=torch.float64), []

    def encoder(rows):
        seen.append(len(rows))
        return inner(rows)

    found = decompose(encoder, x, n_steps=4, internal_batch_size=bound, forward_mode=forward_mode)
    assert max(seen) <= bound
    assert torch.allclose(found.parts, decompose(inner, x, n_steps=4).parts, atol=1e-12)


def test_extra_arguments_stay_with_their_rows():
    inner, x, gate = smooth(), torch.rand(5, 6, dtype=torch.float64), torch.rand(5, 6, dtype=torch.float64)

    def encoder(rows, gate):
        return inner(rows * gate)

    options = {"n_steps": 4, "internal_batch_size": 7}
    found = decompose(encoder, x, additional_forward_args=(gate,), **options).parts
    for row in range(5):
        alone = decompose(lambda rows, row=row: inner(rows * gate[row]), x[[row]], **options).parts
        assert torch.allclose(found[[row]], alone, atol=1e-12)


def test_through_attention_both_directions_agree_and_nothing_is_left_changed():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3)).double().eval()
    x = torch.rand(2, 5, 8, dtype=torch.float64)
    kept, parts = x.clone(), torch.arange(5)[:, None]
    one, other = (decompose(encoder, x, parts=parts, n_steps=3, forward_mode=mode).parts for mode in (True, False))
    assert torch.allclose(one, other, atol=1e-12) and one.shape == (2, 5, 3)
    assert torch.equal(x, kept) and not x.requires_grad and torch.backends.mha.get_fastpath_enabled()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in encoder.parameters())


def test_another_networks_pair_has_another_matrix():
    x, y = torch.rand(2, 1, 6, dtype=torch.float64)
    one, other = (interactions(decompose(encoder, x), decompose(encoder, y)) for encoder in (smooth(), smooth()))
    assert not torch.allclose(one.matrix, other.matrix, atol=1e-2)


def test_patches_cover_an_image_that_they_do_not_divide():
    number = patches(7, 5, 3, 2)
    sizes = number.flatten().bincount()
    assert len(sizes) == 6 and sizes.sum() == 35 and sizes.min() >= 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"inputs": torch.full((1, 6), torch.nan).double()}, "NaN"),
        ({"inputs": torch.zeros(0, 6).double()}, "empty batch"),
        ({"baselines": torch.zeros(2, 6).double()}, "baselines must have the inputs' shape"),
        ({"n_steps": 0}, "n_steps must be a positive integer"),
        ({"internal_batch_size": 0}, "internal_batch_size must be a positive integer"),
        ({"parts": torch.zeros(6)}, "integers from 0"),
        ({"parts": torch.arange(5)}, "must broadcast"),
        ({"encoder": smooth().train()}, "training mode"),
        ({"encoder": lambda rows: rows[:, None]}, "shape"),
    ],
)
def test_refuses(change, sentence):
    usual = {"encoder": smooth(), "inputs": torch.rand(1, 6).double()}
    with pytest.raises(ValueError, match=sentence):
        decompose(**usual | change)


def test_refuses_pairs_that_do_not_fit():
    one = decompose(smooth(), torch.rand(3, 6).double(), n_steps=1)
    with pytest.raises(ValueError, match="as many rows"):
        interactions(one, one[:2])
    with pytest.raises(ValueError, match="same D"):
        interactions(one, decompose(smooth(units=5), torch.rand(3, 6).double(), n_steps=1))
    zero = decompose(nn.Linear(6, 2, bias=False).eval(), torch.zeros(3, 6), n_steps=1)
    with pytest.raises(ValueError, match="norm zero"):
        interactions(zero, zero, cosine=True)
