"""Gradients of representations against finite differences, sums unit by unit, and guided backpropagation by hand."""

import pytest
import torch
from torch import nn

from lfx_utils.features.saliency import guided_saliency, saliency, smooth_saliency, unitwise_saliency


class Reused(nn.Module):
    """Two layers with one ReLU between and after, as ResNets have it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(2, 3, 3), nn.Linear(3 * 16, 5), nn.ReLU()

    def forward(self, images):
        return self.relu(self.second(self.relu(self.first(images)).flatten(1)))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Reused().double().eval()


@pytest.fixture
def images():
    return torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(1)).double()


def test_saliency_by_finite_differences(encoder, images):
    maps, step = saliency(encoder, images), 1e-6
    with torch.no_grad():
        for place in [(0, 0, 0), (1, 2, 3), (0, 5, 5)]:
            moved = images.clone()
            moved[(slice(None), *place)] += step
            slope = (encoder(moved).mean(1) - encoder(images).mean(1)) / step
            assert torch.allclose(maps[(slice(None), *place)], slope, atol=1e-5)
    assert (maps < 0).any()


def by_unit(encoder, images):
    """∇ f_d of every unit and image, one at a time, `(D, B, C, H, W)`."""
    rows = []
    for unit in range(5):
        x = images.clone().requires_grad_()
        rows.append(torch.autograd.grad(encoder(x)[:, unit].sum(), x)[0])
    return torch.stack(rows)


def test_means_over_units(encoder, images):
    gradients = by_unit(encoder, images)
    assert torch.allclose(saliency(encoder, images), gradients.mean(0))
    for chunk in (2, 16):
        assert torch.allclose(unitwise_saliency(encoder, images, chunk=chunk), gradients.abs().mean(0))
    assert torch.allclose(saliency(encoder, images, internal_batch_size=2), gradients.mean(0))


def test_guided_backpropagation_by_hand(encoder, images):
    """At each ReLU the gradient passes where the input was positive and the gradient is."""
    with torch.no_grad():
        before = encoder.first(images)
        after = encoder.second(before.relu().flatten(1))
        gradient = torch.full_like(after, 1 / 5) * (after > 0)
        gradient = (gradient @ encoder.second.weight).view_as(before).clamp_min(0) * (before > 0)
        wanted = nn.functional.conv_transpose2d(gradient, encoder.first.weight)
    assert torch.allclose(guided_saliency(encoder, images), wanted)
    assert not torch.allclose(saliency(encoder, images), wanted)


def test_smoothgrad_is_the_mean_over_noise(encoder, images):
    assert torch.allclose(smooth_saliency(encoder, images, samples=3, deviation=0.0), saliency(encoder, images))
    smooth = smooth_saliency(encoder, images, samples=4_000, deviation=0.5)
    noise = 0.5 * (images.max() - images.min()) * torch.randn(4_000, *images.shape[1:], dtype=torch.float64)
    for image, found in zip(images, smooth, strict=True):
        rows = saliency(encoder, image + noise)
        assert ((found - rows.mean(0)).abs() < 6 * rows.std(0) * (2 / 4_000) ** 0.5 + 1e-12).all()


def test_noise_is_seeded_and_leaves_the_global_generator(encoder, images):
    state = torch.get_rng_state()
    first, again, other = (smooth_saliency(encoder, images, samples=2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_encoder_is_left_as_it_was(encoder, images):
    for method in (saliency, smooth_saliency, guided_saliency, unitwise_saliency):
        assert not method(encoder, images).requires_grad
    assert not images.requires_grad and all(parameter.grad is None for parameter in encoder.parameters())
    assert not encoder.relu._backward_hooks and not encoder.relu._forward_pre_hooks


@pytest.mark.parametrize("method", [saliency, smooth_saliency, guided_saliency, unitwise_saliency])
def test_wrong_use_is_told(encoder, images, method):
    with pytest.raises(ValueError, match="NaN"):
        method(encoder, images * torch.nan)
    with pytest.raises(ValueError, match="training mode"):
        method(Reused().double(), images)
    with pytest.raises(ValueError, match=r"representations of shape \(B, D\)"):
        method(nn.ReLU().eval(), images)


def test_wrong_options_are_told(encoder, images):
    with pytest.raises(ValueError, match="no nn.ReLU module"):
        guided_saliency(nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).double().eval(), images)
    with pytest.raises(ValueError, match="samples must be a positive integer"):
        smooth_saliency(encoder, images, samples=0)
    with pytest.raises(ValueError, match="deviation no less than 0"):
        smooth_saliency(encoder, images, deviation=float("nan"))


SALIENCIES = [saliency, smooth_saliency, guided_saliency, unitwise_saliency]


@pytest.mark.parametrize("method", SALIENCIES)
def test_encoders_in_place_in_half_and_at_random(encoder, images, method):
    class Wrapped(nn.Module):
        def __init__(self, change):
            super().__init__()
            self.encoder, self.change = encoder, change

        def forward(self, x):
            return self.encoder(self.change(x))

    kept = images.clone()
    found = method(Wrapped(lambda x: x.sub_(0.5)).eval(), images)
    assert torch.equal(images, kept) and torch.allclose(found, method(Wrapped(lambda x: x - 0.5).eval(), images))
    with pytest.raises(ValueError, match="two representations"):
        method(Wrapped(lambda x: x + torch.randn_like(x)).eval(), images)
    with pytest.raises(ValueError, match="no gradient"):
        method(Wrapped(torch.Tensor.detach).eval(), images)
    half = method(encoder.bfloat16(), images.bfloat16())
    assert torch.corrcoef(torch.stack([half.flatten(), method(encoder.float(), images.float()).flatten()]))[0, 1] > 0.98


def test_guided_backpropagation_sees_no_function(images):
    class Function(Reused):
        def forward(self, images):
            return self.relu(self.second(torch.relu(self.first(images)).flatten(1)))

    with pytest.raises(ValueError, match="2 ReLUs on its way but only 1 of them are modules"):
        guided_saliency(Function().double().eval(), images)


def test_unitwise_saliency_takes_a_batch_in_parts(encoder, images):
    many = torch.rand(9, *images.shape[1:], dtype=torch.float64)
    found = unitwise_saliency(encoder, many, chunk=16)
    assert torch.allclose(found, torch.cat([unitwise_saliency(encoder, row) for row in many.split(1)]))
