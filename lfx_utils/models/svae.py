"""The supervised VAE, whose classifier sees one half of the code only, and the semi-supervised VAE (M2) beside it.

Both are built of the same trunk and decoder. The text leaves the networks and the likelihood to a supplement; what
stands here in their place: dense or strided convolutional networks, and pixels that are normal with a fixed deviation.
Bernoulli pixels are ruled out by Table 1, whose reconstruction terms are positive in places.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.models.svae_parts import Normal, head, kl, log_likelihood, normal, one_hot, positive


class Terms(NamedTuple):
    """The four terms of Eq. 6, unweighted and one number an image, `(B,)` each.

    Args:
        reconstruction: E log p(x|z), Eq. 6b.
        prior: KL(q(z|x,y) ‖ p(z)), Eq. 6c.
        sufficiency: KL(q(z|x,y) ‖ q(z|x)), Eq. 6d.
        classifier: E log p(y|z1), Eq. 6e with Eq. 7.
    """

    reconstruction: Tensor
    prior: Tensor
    sufficiency: Tensor
    classifier: Tensor

    def bound(self, alpha: float, beta: float) -> Tensor:
        """Return L_β `(B,)` with the classifier weighted by α > 0; β in [0, 1] mixes p(x, y) with p(y|x)."""
        positive(alpha)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must lie in [0, 1], since it mixes two bounds, got {beta}.")
        generative = self.reconstruction - self.prior
        return beta * generative - (1 - beta) * self.sufficiency + alpha * self.classifier


class SemiTerms(NamedTuple):
    """The terms of Eq. 8, one number an image, `(B,)` each; U(x, y) is `reconstruction − prior`.

    Args:
        reconstruction: E log p(x|y,z) under q(z|x,y).
        prior: KL(q(z|x,y) ‖ p(z)).
        unlabelled: Σ_c q(c|x) U(x,c).
        entropy: H(q(y|x)).
        classifier: log q(y|x).
    """

    reconstruction: Tensor
    prior: Tensor
    unlabelled: Tensor
    entropy: Tensor
    classifier: Tensor

    def bound(self, alpha: float) -> Tensor:
        """Return the bound of Eq. 8 `(B,)`, its last mean over N images taken image by image."""
        labelled = self.reconstruction - self.prior
        return labelled + self.unlabelled + self.entropy + positive(alpha) * self.classifier


class SVAE(nn.Module):
    """The supervised VAE: z = (z1, z2) generates the image, z1 alone the label.

    Args:
        trunk: from images `(B, C, H, W)` to features `(B, features)`; the two encoders q(z|x) and q(z|x,y) share it.
        decoder: from codes `(B, classifier_dims + nuisance_dims)` to the pixels' means `(B, C, H, W)`.
        features: the trunk's outputs.
        classes: C.
        classifier_dims: of z1. The text has 10 on MNIST; its classifier is not given, here it is a linear layer that
            starts at the identity, so that dimension c begins as the logit of class c (Fig. 7 perturbs one for each).
        nuisance_dims: of z2; 5 on MNIST.

    Raises:
        ValueError: a count below 1; without nuisance dimensions nothing could be varied.

    Source:
        Learning invariances with a supervised VAE, Eqs. 6 and 7.
    """

    def __init__(
        self,
        trunk: nn.Module,
        decoder: nn.Module,
        features: int,
        classes: int = 10,
        classifier_dims: int = 10,
        nuisance_dims: int = 5,
    ):
        super().__init__()
        checks.counts(classes=classes, classifier_dims=classifier_dims, nuisance_dims=nuisance_dims)
        self.classes, self.latent = classes, classifier_dims + nuisance_dims
        self.halves = slice(0, classifier_dims), slice(classifier_dims, self.latent)
        self.trunk, self.decoder = trunk, decoder
        self.posterior = head(features, features, 2 * self.latent)
        self.labelled = head(features + classes, features, 2 * self.latent)
        self.classifier = nn.Linear(classifier_dims, classes)
        nn.init.eye_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Normal:
        """Return q(z|x), or q(z|x,y) with labels `(B,)`."""
        features = self.trunk(images)
        if labels is None:
            return normal(self.posterior(features))
        return self._labelled(features, labels)

    def terms(self, images: Tensor, labels: Tensor, noise: Tensor) -> Terms:
        """Return the terms of Eq. 6 for one sample z of q(z|x,y) an image; noise is ε `(B, D)`."""
        features = self.trunk(images)
        plain, labelled = normal(self.posterior(features)), self._labelled(features, labels)
        sample = labelled.sample(noise)
        logits = self.classifier(sample[:, self.halves[0]])
        return Terms(
            log_likelihood(images, self.decoder(sample)),
            kl(labelled),
            kl(labelled, plain),
            -F.cross_entropy(logits, labels, reduction="none"),
        )

    def classify(self, images: Tensor) -> Tensor:
        """Return log p(y|x) `(B, C)`, Eq. 4 with the mean of q(z1|x) in place of the integral."""
        return self.classifier(self.encode(images).mean[:, self.halves[0]]).log_softmax(1)

    def nuisance(self, images: Tensor) -> Normal:
        """Return q(z2|x)."""
        return self.encode(images).part(self.halves[1])

    def transform(self, images: Tensor, nuisance: Tensor) -> Tensor:
        """Return images with their own z1 (its mean) and the given z2, `(B, nuisance_dims)`."""
        return self.decoder(torch.cat([self.encode(images).mean[:, self.halves[0]], nuisance], 1))

    def _labelled(self, features: Tensor, labels: Tensor) -> Normal:
        return normal(self.labelled(torch.cat([features, one_hot(labels, self.classes).to(features)], 1)))


class SemiVAE(nn.Module):
    """Model M2: the label itself and a code z generate the image; a network of its own, q(y|x), classifies.

    Args:
        trunk, features, classes: as in `SVAE`.
        decoder: from `(B, classes + nuisance_dims)` to images; with as many classes as the SVAE has classifier
            dimensions, the same network.
        nuisance_dims: of z. The label takes the place of z1, so that all of z is free.

    Source:
        Kingma et al. (2014); Learning invariances with a supervised VAE, Eq. 8, which leaves out the constant log p(y).
    """

    def __init__(self, trunk: nn.Module, decoder: nn.Module, features: int, classes: int = 10, nuisance_dims: int = 5):
        super().__init__()
        checks.counts(classes=classes, nuisance_dims=nuisance_dims)
        self.classes, self.latent = classes, nuisance_dims
        self.trunk, self.decoder = trunk, decoder
        self.labelled = head(features + classes, features, 2 * nuisance_dims)
        self.classifier = head(features, features, classes)

    def encode(self, images: Tensor, labels: Tensor) -> Normal:
        """Return q(z|x,y)."""
        return self._code(self.trunk(images), one_hot(labels, self.classes))

    def terms(self, images: Tensor, labels: Tensor, noise: Tensor) -> SemiTerms:
        """Return the terms of Eq. 8 for one z an image and class; noise is ε `(B, D)`, shared by an image's classes."""
        features, size = self.trunk(images), len(images)
        log_probabilities = self.classifier(features).log_softmax(1)
        own = one_hot(labels, self.classes)
        # All classes in one pass: the images' rows as often as there are classes, class by class.
        every = torch.eye(self.classes).to(features).repeat_interleave(size, 0)
        code = self._code(features.repeat(self.classes, 1), every)
        means = self.decoder(torch.cat([every, code.sample(noise.repeat(self.classes, 1))], 1))
        fits = log_likelihood(images.repeat(self.classes, 1, 1, 1), means).view(self.classes, size).T
        spreads = kl(code).view(self.classes, size).T
        probabilities, own = log_probabilities.exp(), own.to(fits)
        return SemiTerms(
            (own * fits).sum(1),
            (own * spreads).sum(1),
            (probabilities * (fits - spreads)).sum(1),
            -(probabilities * log_probabilities).sum(1),
            (own * log_probabilities).sum(1),
        )

    def classify(self, images: Tensor) -> Tensor:
        """Return log q(y|x) `(B, C)`."""
        return self.classifier(self.trunk(images)).log_softmax(1)

    def nuisance(self, images: Tensor) -> Normal:
        """Return q(z|x,ŷ) with the predicted label ŷ."""
        return self.encode(images, self.classify(images).argmax(1))

    def transform(self, images: Tensor, nuisance: Tensor) -> Tensor:
        """Return images with their own predicted label and the given z, `(B, nuisance_dims)`."""
        own = one_hot(self.classify(images).argmax(1), self.classes).to(nuisance)
        return self.decoder(torch.cat([own, nuisance], 1))

    def _code(self, features: Tensor, labels: Tensor) -> Normal:
        return normal(self.labelled(torch.cat([features, labels.to(features)], 1)))
