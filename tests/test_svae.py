"""The supervised VAE and M2: every term against torch's distributions, simulation or a plain loop."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from lfx_utils.models import svae, svae_parts
from lfx_utils.models.svae import SVAE, SemiVAE
from lfx_utils.models.svae_parts import kl

SHAPE = (1, 8, 8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(kind, classes=4, classifier_dims=4, nuisance_dims=3, seed=0):
    """A model with random weights, in double precision."""
    torch.manual_seed(seed)
    latent = (classifier_dims if kind is SVAE else classes) + nuisance_dims
    trunk, decoder, features = svae_parts.dense(SHAPE, latent, width=12)
    dims = {"classifier_dims": classifier_dims} if kind is SVAE else {}
    model = kind(trunk, decoder, features, classes, nuisance_dims=nuisance_dims, **dims).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator(seed + 1)))
    return model


def batch(size=5, classes=4, seed=2):
    images = torch.rand(size, *SHAPE, generator=generator(seed), dtype=torch.float64)
    return images, torch.randint(classes, (size,), generator=generator(seed + 1))


def distribution(code):
    return Independent(Normal(code.mean, code.log_std.exp()), 1)


def codes(seed=0, size=6, dims=4):
    return [
        svae_parts.Normal(*(torch.randn(2, size, dims, generator=generator(seed + i)).double() * 0.7)) for i in (0, 1)
    ]


def test_divergence_of_torch():
    first, second = codes()
    assert torch.allclose(kl(first, second), kl_divergence(distribution(first), distribution(second)))
    zero = torch.zeros_like(first.mean)
    assert torch.allclose(kl(first), kl_divergence(distribution(first), distribution(svae_parts.Normal(zero, zero))))
    assert torch.equal(kl(first, first), torch.zeros(6).double())


def test_divergence_of_simulation():
    first, second = codes(seed=5)
    draws = distribution(first).mean + first.log_std.exp() * torch.randn(200_000, 6, 4, generator=generator(9)).double()
    ratio = distribution(first).log_prob(draws) - distribution(second).log_prob(draws)
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - kl(first, second)).abs() < 4.5 * error).all()
    assert (error < 0.02 * kl(first, second)).all()  # else the comparison could not fail


def test_log_likelihood():
    images, means = torch.rand(2, 5, *SHAPE, generator=generator(3)).double()
    expected = Independent(Normal(means, svae_parts.DEVIATION), 3).log_prob(images)
    assert torch.allclose(svae_parts.log_likelihood(images, means), expected)


def test_terms_of_the_svae():
    # Eq. 6 with torch's distributions, image by image.
    model, (images, labels) = small(SVAE), batch()
    noise = torch.randn(5, model.latent, generator=generator(4)).double()
    terms = model.terms(images, labels, noise)
    plain, labelled = distribution(model.encode(images)), distribution(model.encode(images, labels))
    prior = Independent(Normal(torch.zeros(5, 7).double(), torch.ones(5, 7).double()), 1)
    z = labelled.mean + labelled.base_dist.stddev * noise
    logits = z[:, :4] @ model.classifier.weight.T + model.classifier.bias
    pixels = Independent(Normal(model.decoder(z), svae_parts.DEVIATION), 3)
    for found, expected in zip(
        terms,
        (
            pixels.log_prob(images),
            kl_divergence(labelled, prior),
            kl_divergence(labelled, plain),
            Categorical(logits=logits).log_prob(labels),
        ),
        strict=True,
    ):
        assert found.shape == (5,) and torch.allclose(found, expected)


@pytest.mark.parametrize("alpha, beta", [(60, 0.01), (6000, 0.9), (1, 0.0), (1, 1.0)])
def test_bound_mixes_the_two_bounds(alpha, beta):
    # β times Eq. 3 and 1 − β times Eq. 2; both hold the classifier's term, which only then is weighted by α.
    terms = svae.Terms(*torch.randn(4, 6, generator=generator(1)).double())
    joint = terms.reconstruction + terms.classifier - terms.prior
    conditional = terms.classifier - terms.sufficiency
    expected = beta * joint + (1 - beta) * conditional + (alpha - 1) * terms.classifier
    assert torch.allclose(terms.bound(alpha, beta), expected)


def test_terms_of_m2():
    # Eq. 8 by a loop over images and classes, one decoder call each.
    model, (images, labels) = small(SemiVAE), batch()
    noise = torch.randn(5, model.latent, generator=generator(4)).double()
    terms = model.terms(images, labels, noise)
    log_q = model.classify(images)
    for row in range(5):
        bounds = []
        for label in range(4):
            one = torch.tensor([label])
            code = model.encode(images[row : row + 1], one)
            z = code.mean + code.log_std.exp() * noise[row]
            means = model.decoder(torch.cat([torch.eye(4).double()[label][None], z], 1))
            fit = Independent(Normal(means, svae_parts.DEVIATION), 3).log_prob(images[row])
            spread = kl_divergence(distribution(code), Independent(Normal(0 * code.mean, 1 + 0 * code.mean), 1))
            bounds.append(fit - spread)
            if label == labels[row]:
                assert torch.allclose(terms.reconstruction[row], fit) and torch.allclose(terms.prior[row], spread)
        q = log_q[row].exp()
        assert torch.allclose(terms.unlabelled[row], (q * torch.cat(bounds)).sum())
        assert torch.allclose(terms.entropy[row], Categorical(probs=q).entropy())
        assert torch.allclose(terms.classifier[row], log_q[row, labels[row]])
        unlabelled = (q * torch.cat(bounds)).sum() - (q * log_q[row]).sum()
        assert torch.allclose(terms.bound(60)[row], bounds[labels[row]] + unlabelled + 60 * log_q[row, labels[row]])


def test_classifier_sees_z1_only():
    model, (images, labels) = small(SVAE), batch()
    noise = torch.randn(5, model.latent, generator=generator(4)).double().requires_grad_()
    terms = model.terms(images, labels, noise)
    (gradient,) = torch.autograd.grad(terms.classifier.sum(), noise, retain_graph=True)
    assert (gradient[:, 4:] == 0).all() and (gradient[:, :4] != 0).all()
    (gradient,) = torch.autograd.grad(terms.reconstruction.sum(), noise)
    assert (gradient != 0).any(0).all()  # the reconstruction rests on the whole code


def test_transform_keeps_the_classifiers_half():
    images, _ = batch()
    for kind in (SVAE, SemiVAE):
        model = small(kind)
        own = model.nuisance(images).mean
        made = model.transform(images, own + 1)
        assert made.shape == images.shape and not torch.allclose(made, model.transform(images, own))
        label = torch.eye(4).double()[model.classify(images).argmax(1)]
        kept = model.encode(images).mean[:, :4] if kind is SVAE else label
        assert torch.allclose(made, model.decoder(torch.cat([kept, own + 1], 1)))
        assert torch.allclose(model.classify(images).exp().sum(1), torch.ones(5).double())


def test_same_networks():
    # With as many classifier dimensions as classes, both models hold the same trunk and decoder.
    def shapes(model):
        return [parameter.shape for part in (model.trunk, model.decoder) for parameter in part.parameters()]

    assert shapes(small(SVAE)) == shapes(small(SemiVAE))
    default = SVAE(*svae_parts.dense((1, 28, 28), 15))
    assert [half.stop - half.start for half in default.halves] == [10, 5]  # Section 3.1
    assert torch.equal(default.classifier.weight, torch.eye(10))


@pytest.mark.parametrize("shape", [(1, 24, 24), (3, 32, 32)])
def test_convolutional_networks(shape):
    trunk, decoder, features = svae_parts.convolutional(shape, latent=7, width=4)
    images = torch.rand(2, *shape)
    assert trunk(images).shape == (2, features)
    made = decoder(torch.randn(2, 7))
    assert made.shape == images.shape and 0 < made.min() and made.max() < 1


def test_learns_to_classify_and_to_reconstruct():
    # Two bars in one of two places: the label is the place of the first, the second is a nuisance.
    torch.manual_seed(0)
    labels, other = torch.randint(2, (2, 400))
    images = torch.zeros(400, *SHAPE)
    images[range(400), 0, 3 * labels] = 1
    images[range(400), 0, :, 5 + other] = 1
    trunk, decoder, features = svae_parts.dense(SHAPE, 4, width=32)
    model = SVAE(trunk, decoder, features, 2, classifier_dims=2, nuisance_dims=2)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        terms = model.terms(images, labels, torch.randn(400, 4))
        loss = -terms.bound(100, 0.5).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(terms.reconstruction.mean().item())
    assert (model.classify(images).argmax(1) == labels).float().mean() > 0.99
    assert losses[-1] > losses[0] + 300


def test_bad_input():
    images, labels = batch()
    trunk, decoder, features = svae_parts.dense(SHAPE, 7, width=12)
    for wrong in (labels + 4, labels - 9):
        with pytest.raises(ValueError, match=r"labels must lie in 0 … 3, got"):
            small(SVAE).terms(images, wrong, torch.zeros(5, 7).double())
        with pytest.raises(ValueError, match=r"labels must lie in 0 … 3, got"):
            small(SemiVAE).terms(images, wrong, torch.zeros(5, 3).double())
    for wrong in (labels.float(), labels[:, None]):
        with pytest.raises(ValueError, match="labels must be int64 of shape"):
            small(SVAE).encode(images, wrong)
    for count in (0, -1, 2.0):
        with pytest.raises(ValueError, match=f"nuisance_dims must be an integer of at least 1, got {count}"):
            SVAE(trunk, decoder, features, nuisance_dims=count)
        with pytest.raises(ValueError, match=f"nuisance_dims must be an integer of at least 1, got {count}"):
            SemiVAE(trunk, decoder, features, nuisance_dims=count)
    terms = svae.Terms(*torch.zeros(4, 2))
    for beta in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\], .* got"):
            terms.bound(60, beta)
    for alpha in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="alpha must be positive and finite, got"):
            terms.bound(alpha, 0.5)
        with pytest.raises(ValueError, match="alpha must be positive and finite, got"):
            svae.SemiTerms(*torch.zeros(5, 2)).bound(alpha)
    with pytest.raises(ValueError, match="sides that 8 divides"):
        svae_parts.convolutional((1, 28, 28), 7)


def test_pixels_beyond_one_are_out_of_the_decoders_reach():
    model, (images, labels) = small(SVAE), batch()
    noise = torch.zeros(len(images), model.latent).double()
    for wrong in (255 * images, 2 * images - 1):
        with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got values from"):
            model.terms(wrong, labels, noise)
