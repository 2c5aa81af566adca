"""Noisy MNIST's views: who is paired with whom, and the noise against its closed form."""

import pytest
import torch

from lfx_utils.datasets import load
from lfx_utils.datasets.noisy_mnist import pair


def images(count=60, seed=0):
    return torch.rand(count, 1, 5, 7, generator=torch.Generator().manual_seed(seed))


def test_partners_are_of_the_same_class_and_differ():
    given, labels = images(), torch.arange(60) % 3
    views = pair(given, labels)
    assert torch.equal(views.clean, given) and torch.equal(views.labels, labels) and len(views) == 60
    partner = (views.hidden[:, None] == given[None]).flatten(2).all(2)
    assert partner.sum(1).eq(1).all()
    partner = partner.float().argmax(1)
    assert torch.equal(labels[partner], labels)
    assert (partner == torch.arange(60)).sum() < 15 and partner.unique().numel() > 25


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_noise_has_the_closed_form(value):
    """min(1, v + u) with u uniform is v + u below 1, has mean v + ½ − v²/2, and is 1 with probability v."""
    views = pair(torch.full((40, 1, 50, 50), value), torch.zeros(40, dtype=torch.long))
    noisy = views.noisy.double()
    assert noisy.min() >= value and noisy.max() <= 1
    assert noisy.mean().item() == pytest.approx(value + 0.5 - value**2 / 2, abs=0.005)
    assert noisy.eq(1).double().mean().item() == pytest.approx(value, abs=0.01)
    if value == 0:
        assert noisy.var().item() == pytest.approx(1 / 12, abs=0.001)
        neighbours = torch.stack([noisy[..., :-1].flatten(), noisy[..., 1:].flatten()])
        assert torch.corrcoef(neighbours)[0, 1].abs() < 0.02


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    given, labels, state = images(), torch.arange(60) % 3, torch.get_rng_state()
    first, again, other = (pair(given, labels, seed=seed).noisy for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_on_the_embedded_digits():
    digits = load("digits", train=50, test=20)
    views = pair(digits.test, digits.test_labels)
    assert views.noisy.shape == digits.test.shape and views.noisy.dtype == torch.float32
    ink = views.hidden > 0.5
    assert views.noisy[ink].mean() > 0.85 and abs(views.noisy[views.hidden == 0].mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("given", "labels", "message"),
    [
        (images(0), torch.zeros(0), "non-empty batch"),
        (images()[0], torch.zeros(1), "non-empty batch"),
        (images(), torch.zeros(59), "one for each of the 60 images"),
        (2 * images(), torch.zeros(60), r"lie in \[0, 1\]"),
        (images() * torch.nan, torch.zeros(60), r"lie in \[0, 1\]"),
    ],
)
def test_wrong_use(given, labels, message):
    with pytest.raises(ValueError, match=message):
        pair(given, labels)
