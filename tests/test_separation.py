"""The penalty that parts the units' maps: closed forms, differences one at a time, and what it does in training."""

from functools import partial

import pytest
import torch
from torch import nn

from lfx_utils.measures import overlap
from lfx_utils.models import vae
from lfx_utils.training import ensembles, overlap_penalty


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_map_of_a_linear_unit_is_weight_times_image():
    weights, images = random(3, 20), random(5, 1, 4, 5, seed=1)
    maps = overlap_penalty.gradient_times_input(lambda x: x.flatten(1) @ weights.T, images)
    assert torch.allclose(maps, images[:, None] * weights.view(1, 3, 1, 4, 5), atol=1e-6)


def test_map_against_differences_one_pixel_at_a_time():
    model, images = vae.enliven(vae.VAE(8, 2, width=2)).double(), random(2, 1, 8, 8).double()
    maps = overlap_penalty.gradient_times_input(lambda x: model(x).mean, images)
    step = 1e-6
    for pixel in (0, 27, 63):
        nudge = torch.zeros(64, dtype=torch.float64).index_fill(0, torch.tensor([pixel]), step).view(1, 1, 8, 8)
        slope = (model(images + nudge).mean - model(images - nudge).mean) / (2 * step)
        assert torch.allclose(
            maps.flatten(2)[..., pixel], slope.detach() * images.flatten(1)[:, pixel, None], atol=1e-7
        )


def test_overlap_by_hand():
    apart, alike = torch.eye(3)[None], torch.ones(1, 3, 4)
    assert overlap_penalty.overlap(apart) == 0 and overlap_penalty.overlap(alike).item() == pytest.approx(1)
    assert overlap_penalty.overlap(torch.tensor([[[3.0, 4.0], [-1.0, 0.0]]])).item() == pytest.approx(0.6)
    silent = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    assert overlap_penalty.overlap(silent) == 0
    values = random(7, 4, 5, 6)
    assert overlap_penalty.overlap(values).item() == pytest.approx(overlap.cosine(values.abs()), abs=1e-5)
    for bad in (values[:, :1], values[0, 0]):
        with pytest.raises(ValueError, match="D ≥ 2"):
            overlap_penalty.overlap(bad)


def test_gradient_reaches_the_weights_and_is_finite_for_black_images():
    layer = nn.Linear(6, 2, bias=False).double()
    images = random(3, 1, 2, 3).double()

    def penalty(weight):
        return overlap_penalty.overlap(overlap_penalty.gradient_times_input(lambda x: x.flatten(1) @ weight.T, images))

    assert torch.autograd.gradcheck(penalty, layer.weight.detach().clone().requires_grad_())
    model = vae.VAE(8, 2, width=2)
    overlap_penalty.objective(model, torch.zeros(4, 1, 8, 8), torch.zeros(4, 2), 1.0, 0.0, 10.0).backward()
    assert all(value.grad.isfinite().all() for value in model.parameters())


def test_objective_adds_the_penalty_of_the_first_rows():
    model, images, noise = vae.VAE(8, 2, width=2), random(6, 1, 8, 8).sigmoid(), random(6, 2, seed=1)
    plain = vae.objective(model, images, noise, 2.0, 1.0)
    maps = overlap_penalty.gradient_times_input(lambda x: model(x).mean, images[:3])
    total = overlap_penalty.objective(model, images, noise, 2.0, 1.0, 7.0, rows=3)
    assert total.item() == pytest.approx((plain + 7 * overlap_penalty.overlap(maps)).item(), rel=1e-5)
    assert overlap_penalty.objective(model, images, noise, 2.0, 1.0, 0.0).item() == pytest.approx(plain.item())


def test_trained_units_overlap_less_and_ensembles_agree():
    images = random(96, 1, 8, 8).round().clamp(0, 1)
    make, options = partial(vae.VAE, 8, 2, width=4), dict(seeds=(0, 0), noise=2, epochs=8, batch_size=16, rate=1e-2)
    settings = ((0.1, 0.1), (0.0, 0.0), (0.0, 30.0))
    ways = {}
    for together in (False, True):
        models = ensembles.build(lambda: vae.enliven(make(), 0.3), (0, 0))
        ensembles.fit(models, overlap_penalty.objective, images, settings=settings, together=together, **options)
        maps = [overlap_penalty.gradient_times_input(lambda x, m=model: m(x).mean, images[:40]) for model in models]
        ways[together] = [overlap.cosine(values.detach().abs()) for values in maps]
    assert ways[False][1] < 0.7 * ways[False][0]
    assert ways[True] == pytest.approx(ways[False], abs=0.02)
