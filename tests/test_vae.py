"""The VAEs: sizes, and every term of the objective against quadrature, enumeration or torch's own distributions."""

import math
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from lfx_utils.features import LabelFree
from lfx_utils.models import vae
from lfx_utils.models.vae import VAE


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size, latent, flat", [(32, 3, 6), (32, 6, 12), (64, 6, 12), (64, 3, 6), (16, 2, 4)])
def test_shapes(size, latent, flat):
    model = VAE(size, latent)
    images = torch.rand(5, 1, size, size, generator=generator())
    out = model(images, torch.zeros(5, latent))
    assert out.logits.shape == images.shape and out.mean.shape == out.log_std.shape == out.sample.shape == (5, latent)
    assert model.encoder[-1].out_features == flat
    assert torch.equal(out.sample, out.mean) and torch.equal(model.decode(out.mean), out.logits.sigmoid())


def test_printed_layers():
    # Input and output sizes of the dense layers and the number of convolutions, as printed in Tables 8 and 9.
    for size, stages, latent in ((32, 3, 3), (64, 4, 6)):
        model = VAE(size, latent)
        dense = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, torch.nn.Linear)]
        assert dense == [(512, 256), (256, 256), (256, 2 * latent), (latent, 256), (256, 256), (256, 512)]
        down = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
        up = [m for m in model.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
        assert [m.out_channels for m in down] == [32] * stages and [m.out_channels for m in up] == [32] * (
            stages - 1
        ) + [1]
        assert {(m.kernel_size, m.stride) for m in down + up} == {((4, 4), (2, 2))}


def test_sampling():
    model = VAE(16, 2, width=4)
    images, noise = torch.rand(4, 1, 16, 16), torch.randn(4, 2, generator=generator())
    _, mean, log_std, sample = model(images, noise)
    assert torch.allclose((sample - mean) / log_std.exp(), noise, atol=1e-5)


@pytest.mark.parametrize("size", [16, 64])
def test_enlivened_signals_keep_their_size(size):
    model = vae.VAE(size, 6)
    images = torch.rand(200, 1, size, size, generator=generator()).round()

    def spread():
        with torch.no_grad():
            code = model.encoder(images)
            return code.std(0).mean().item(), model.decoder(torch.randn(200, 6, generator=generator(1))).std().item()

    plain = spread()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert vae.enliven(model, brightness=0.2) is model
    lively = spread()
    assert lively[0] > 5 * plain[0] and lively[1] > 5 * plain[1] and 0.3 < lively[1] < 3
    assert torch.sigmoid(model.decoder[-1].bias).item() == pytest.approx(0.2)
    assert all(value.isfinite().all() for value in model.parameters())


def test_mean_encoder_shares_weights_and_can_be_explained():
    model = VAE(16, 2, width=4).eval()
    encoder, images = vae.mean_encoder(model), torch.rand(3, 1, 16, 16, generator=generator())
    assert torch.equal(encoder(images), model(images).mean) and not encoder.training
    assert encoder[0].weight is model.encoder[0].weight
    maps = LabelFree(IntegratedGradients, encoder).attribute(images, baselines=torch.zeros(1, 1, 16, 16))
    assert maps.shape == images.shape and maps.abs().sum() > 0


@pytest.mark.parametrize("size, latent", [(28, 3), (4, 3), (0, 3), (32, 0)])
def test_impossible_sizes(size, latent):
    with pytest.raises(ValueError, match="size must be|latent must be"):
        VAE(size, latent)


def test_resize():
    ramp = torch.arange(28.0).expand(1, 1, 28, 28)
    inner = vae.resize(ramp)[0, 0, 5, 2:-2]
    assert torch.allclose(inner, (torch.arange(2, 30) + 0.5) * 28 / 32 - 0.5, atol=1e-4)
    blocks = torch.rand(1, 1, 64, 64, generator=generator())
    assert vae.resize(blocks, 32)[0, 0, 3, 4].item() == pytest.approx(blocks[0, 0, 6:8, 8:10].mean().item(), abs=1e-6)


def test_weights():
    assert vae.weights("beta", 10) == (10, 0) and vae.weights("tc", 10) == (1, 9)
    assert vae.weights("beta", 1) == vae.weights("tc", 1)
    for beta in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="beta must be positive"):
            vae.weights("tc", beta)
    with pytest.raises(ValueError, match="'beta' or 'tc', got 'factor'"):
        vae.weights("factor", 1)


def test_reconstruction_and_divergence_against_distributions():
    logits, images = (
        torch.randn(4, 1, 8, 8, generator=generator()),
        torch.rand(4, 1, 8, 8, generator=generator(1)).round(),
    )
    expected = -Bernoulli(logits=logits).log_prob(images).sum((1, 2, 3)).mean()
    assert vae.reconstruction(images, logits).item() == pytest.approx(expected.item(), rel=1e-5)
    mean, log_std = torch.randn(4, 3, generator=generator(2)), torch.randn(4, 3, generator=generator(3))
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum(1).mean()
    assert vae.divergence(mean, log_std).item() == pytest.approx(expected.item(), rel=1e-5)


def mixture(mean, std):
    return MixtureSameFamily(Categorical(torch.ones(len(mean))), Independent(Normal(mean, std), 1))


def exact(mean, std, span=9.0, points=900):
    """Total correlation of a mixture of Gaussians in two dimensions, summed over a fine grid."""
    axis = torch.linspace(-span, span, points, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    joint = mixture(mean, std).log_prob(grid).exp()
    cell = (axis[1] - axis[0]) ** 2
    product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True) * cell
    return (torch.xlogy(joint, joint) - torch.xlogy(joint, product)).sum() * cell


@pytest.mark.parametrize("total", [None, 2], ids=["weighted", "stratified"])
def test_total_correlation_of_two_images(total):
    # With both images in the batch either estimate uses q(h) itself, and only the samples are random.
    mean = torch.tensor([[1.5, 1.0], [-1.5, -1.0]], dtype=torch.float64)
    std = torch.tensor([[0.5, 1.0], [1.0, 0.7]], dtype=torch.float64)
    noise = torch.randn(4_000, 2, 2, generator=generator(), dtype=torch.float64)
    values = torch.func.vmap(lambda eps: vae.total_correlation(mean + std * eps, mean, std.log(), total))(noise)
    truth, error = exact(mean, std), values.std() / len(values) ** 0.5
    assert truth > 0.2 and error < 0.01
    assert abs(values.mean() - truth) < 4 * error


def test_total_correlation_of_correlated_gaussians():
    # Means from N(0, Σ) and posteriors of variance s²: q(h) is N(0, Σ + s² I), whose total correlation is −½ log det R.
    count, std = 1_500, 0.5
    factor = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.6, 0.0], [0.3, 0.2, 1.0]])
    mean = torch.randn(count, 3, generator=generator()) @ factor.T
    sample = mean + std * torch.randn(count, 3, generator=generator(1))
    covariance = factor @ factor.T + std**2 * torch.eye(3)
    scale = covariance.diagonal().sqrt()
    truth = -0.5 * torch.logdet(covariance / scale[:, None] / scale)
    for total in (None, count):
        value = vae.total_correlation(sample, mean, torch.full_like(mean, math.log(std)), total)
        assert value.item() == pytest.approx(truth.item(), abs=0.05) and truth > 0.3
    apart = torch.randn(count, 3, generator=generator(2))
    assert vae.total_correlation(apart, apart, torch.zeros_like(apart)).abs() < 0.1


@pytest.mark.parametrize("size, total", [(2, 5), (3, 5), (4, 5), (5, 5)])
def test_stratified_density_is_unbiased(size, total):
    # All batches of a training set that begin with its image 0: the estimates of q(h) average to the mixture's density.
    densities = Normal(torch.linspace(-2, 2, total), 1.0).log_prob(torch.tensor(0.3)).exp()
    weights = vae.mixture_weights(size, total)
    assert torch.allclose(weights.sum(1), torch.ones(size)) and torch.allclose(
        weights.diagonal(), torch.tensor(1 / total)
    )
    for row in range(size):
        estimates = []
        for others in permutations(range(1, total), size - 1):
            batch = [*others[:row], 0, *others[row:]]
            estimates.append((weights[row] * densities[batch]).sum())
        assert torch.stack(estimates).mean().item() == pytest.approx(densities.mean().item(), rel=1e-5)


def chen(sample, mean, log_std, weight):
    """The estimate written out, one sample and one posterior at a time; `weight(i, j)` is a posterior's share."""
    total = 0.0
    for i, h in enumerate(sample):
        densities = torch.stack([Normal(m, s.exp()).log_prob(h).exp() for m, s in zip(mean, log_std, strict=True)])
        shares = torch.tensor([weight(i, j) for j in range(len(sample))])
        total += (shares * densities.prod(1)).sum().log() - (shares[:, None] * densities).sum(0).log().sum()
    return total / len(sample)


def test_estimates_against_the_paper_written_out():
    size, total = 4, 50
    mean, log_std = (
        torch.randn(size, 3, generator=generator(), requires_grad=True),
        0.3 * torch.randn(size, 3, generator=generator(1)),
    )
    sample = mean + log_std.exp() * torch.randn(size, 3, generator=generator(2))

    def stratified(i, j):
        others = size - 1
        return 1 / total if i == j else (total - others) / (total * others) if j == (i + 1) % size else 1 / others

    for ours, weight, offset in (
        (vae.total_correlation(sample, mean, log_std, total), stratified, 0.0),
        (vae.total_correlation(sample, mean, log_std), lambda i, j: 1 / (size * total), 2 * math.log(total)),
    ):
        theirs = chen(sample, mean, log_std, weight)
        assert ours.item() + offset == pytest.approx(theirs.item(), rel=1e-4)
        slopes = [torch.autograd.grad(value, mean, retain_graph=True)[0] for value in (ours, theirs)]
        assert torch.allclose(*slopes, atol=1e-5) and slopes[0].abs().max() > 0.01


def test_objective_is_the_papers():
    # As Chen et al. write it: mutual information + β · total correlation + KL of the marginals, all from samples.
    model, beta = VAE(8, 2, width=4), 6.0
    images, count = torch.rand(40, 1, 8, 8, generator=generator()).round(), 300
    values = {"ours": [], "theirs": []}
    for draw in range(count):
        noise = torch.randn(40, 2, generator=generator(draw))
        with torch.no_grad():
            values["ours"].append(vae.objective(model, images, noise, *vae.weights("tc", beta)))
            logits, mean, log_std, sample = model(images, noise)
            joint = mixture(mean, log_std.exp()).log_prob(sample)
            pairs = [
                MixtureSameFamily(Categorical(torch.ones(40)), Normal(mean[:, d], log_std[:, d].exp())) for d in (0, 1)
            ]
            marginals = sum(pair.log_prob(sample[:, d]) for d, pair in enumerate(pairs))
            own, prior = Normal(mean, log_std.exp()).log_prob(sample).sum(1), Normal(0.0, 1.0).log_prob(sample).sum(1)
            rest = (own - joint) + beta * (joint - marginals) + (marginals - prior)
            values["theirs"].append(
                F.binary_cross_entropy_with_logits(logits, images, reduction="sum") / 40 + rest.mean()
            )
    difference = torch.stack(values["ours"]) - torch.stack(values["theirs"])
    assert difference.mean().abs() < 4 * difference.std() / count**0.5 and difference.std() > 0
    out = model(images, torch.zeros(40, 2))
    expected = vae.reconstruction(images, out.logits) + 5 * vae.divergence(out.mean, out.log_std)
    assert vae.objective(model, images, torch.zeros(40, 2), *vae.weights("beta", 5)).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


@pytest.mark.parametrize("size, total", [(1, None), (1, 10), (5, 4)])
def test_batches_that_have_no_mixture(size, total):
    with pytest.raises(ValueError, match="2 images at least"):
        vae.total_correlation(torch.zeros(size, 2), torch.zeros(size, 2), torch.zeros(size, 2), total)


@pytest.mark.parametrize("low, high", [(0.0, 255.0), (-1.0, 1.0), (0.0, float("nan"))])
def test_pixels_beyond_one_have_no_likelihood(low, high):
    images = low + (high - low) * torch.rand(2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got values from"):
        vae.reconstruction(images, torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="images must lie"):
        vae.objective(VAE(8, 2, width=2), images, torch.zeros(2, 2), 1.0, 0.0)


def test_pixels_that_rounding_moved_are_taken():
    edge = torch.tensor([[[[-1e-6, 1 + 1e-6]]]])
    torch.testing.assert_close(
        vae.reconstruction(edge, torch.zeros_like(edge)), torch.tensor(2 * math.log(2)), rtol=1e-4, atol=0
    )
