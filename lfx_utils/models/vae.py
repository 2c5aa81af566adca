"""The variational autoencoders of LF Tables 8 and 9, and one objective for the β-VAE and the β-TC-VAE."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lfx_utils import checks


class Pass(NamedTuple):
    """What one pass through a VAE gives: image logits `(B, 1, S, S)`; µ, log σ and the sample h, each `(B, D)`."""

    logits: Tensor
    mean: Tensor
    log_std: Tensor
    sample: Tensor


class VAE(nn.Module):
    """The VAE of Burgess et al. (2018) for S × S images.

    Table 8 is S = 32 with d_H = 3 (MNIST, which the released code enlarges from 28), Table 9 is S = 64 with d_H = 6
    (dSprites); RE's text has these latent sizes the other way round. Three misprints of the tables are not followed: a
    ReLU after the layer that gives µ and log σ, an output padding where 4 → 8 → 16 → 32 needs a padding, and in Table 9
    a convolution that should be a transposed one.

    Args:
        size: S, a power of 2 from 8; each stage halves it down to 4.
        latent: D = d_H.
        width: channels of every stage; the dense layers have eight times as many units.

    Raises:
        ValueError: a size that is not such a power, or no latent unit.

    Source: LF, Tables 8 and 9.
    """

    def __init__(self, size: int = 32, latent: int = 3, width: int = 32):
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"size must be a power of 2, at least 8, got {size}.")
        if latent < 1:
            raise ValueError(f"latent must be at least 1, got {latent}.")
        stages, dense = size.bit_length() - 3, 8 * width
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for stage in range(stages):
            down += [nn.Conv2d(width if stage else 1, width, 4, stride=2, padding=1), nn.ReLU()]
            up += [nn.ReLU(), nn.ConvTranspose2d(width, width if stage < stages - 1 else 1, 4, stride=2, padding=1)]
        self.latent = latent
        self.origin = f"the VAE of LF Tables 8 and 9 with {latent} units and {width} channels on {size} x {size} pixels"
        self.encoder = nn.Sequential(
            *down, nn.Flatten(),
            nn.Linear(16 * width, dense), nn.ReLU(),
            nn.Linear(dense, dense), nn.ReLU(),
            nn.Linear(dense, 2 * latent),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(latent, dense), nn.ReLU(),
            nn.Linear(dense, dense), nn.ReLU(),
            nn.Linear(dense, 16 * width), nn.Unflatten(1, (width, 4, 4)), *up,
        )  # fmt: skip

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Pass:
        """Encode images `(B, 1, S, S)`, sample h = µ + σ ⊙ ε with ε = `noise` `(B, D)` (none: h = µ), and decode."""
        mean, log_std = self.encoder(images).chunk(2, 1)
        sample = mean if noise is None else mean + log_std.exp() * noise
        return Pass(self.decoder(sample), mean, log_std, sample)

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents `(B, D)` to the pixels' probabilities `(B, 1, S, S)`."""
        return self.decoder(latents).sigmoid()


class Means(nn.Module):
    """Keep the first half of the columns, µ of `(µ, log σ)`."""

    def forward(self, posterior: Tensor) -> Tensor:
        """Map `(B, 2D)` to `(B, D)`."""
        return posterior.chunk(2, 1)[0]


def mean_encoder(vae: VAE) -> nn.Sequential:
    """The encoder µ that the chapter explains, images `(B, 1, S, S)` to `(B, D)`; it shares the VAE's weights."""
    encoder = nn.Sequential(*vae.encoder, Means().train(vae.training))
    encoder.training = vae.training  # `train` would reach into the VAE's layers
    encoder.origin = vae.origin
    return encoder


def enliven(model: VAE, brightness: float = 0.05) -> VAE:
    """Redraw the weights in place, so that signals keep their size through the layers and the first image is dark.

    With torch's own weights a signal shrinks in every layer, and hundreds of steps go by before a unit answers to the
    input. The papers' long trainings can afford that, short ones cannot.

    Args:
        model: a `VAE`.
        brightness: every pixel's probability at the beginning.

    Source: He et al. (2015), Eq. 10.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            # A pixel that a transposed convolution of stride 2 makes receives a quarter of the kernel's 16 taps.
            upward = isinstance(layer, nn.ConvTranspose2d)
            inputs = 4 * layer.in_channels if upward else layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        model.encoder[-1].weight.mul_(0.5)
        model.decoder[-1].bias.fill_(math.log(brightness / (1 - brightness)))
    return model


def resize(images: Tensor, size: int = 32) -> Tensor:
    """Bring images `(B, 1, H, W)` to S × S: enlarged bilinearly (MNIST to 32), reduced by averaging (sprites to 32)."""
    if size >= images.shape[-1]:
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(images, size)


def weights(kind: str, beta: float) -> tuple[float, float]:
    """Weights (on the KL divergence, on the total correlation) that make `objective` a β-VAE or a β-TC-VAE.

    Chen et al. split E KL(q(h|x) ‖ p) into mutual information, total correlation and the KL of the units' marginals,
    and weigh the second with β. That is the whole KL once, for which there is a closed form, and the total correlation
    β − 1 times. So at β = 1 the two VAEs are the same.

    Args:
        kind: `"beta"` or `"tc"`.
        beta: β > 0.

    Raises:
        ValueError: an unknown kind, or a β that is not positive and finite.

    >>> weights("beta", 5), weights("tc", 5)
    ((5.0, 0.0), (1.0, 4.0))
    """
    if kind not in ("beta", "tc"):
        raise ValueError(f"kind must be 'beta' or 'tc', got {kind!r}.")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}.")
    return (float(beta), 0.0) if kind == "beta" else (1.0, float(beta) - 1)


def objective(model, images: Tensor, noise: Tensor, kl_weight, tc_weight, total: int | None = None) -> Tensor:
    """−E log p(x|h) + kl_weight · KL + tc_weight · TC, a mean over the batch in nats; lower is better.

    Args:
        model: a `VAE`, or what acts like one.
        images: `(B, 1, S, S)` in [0, 1].
        noise: ε `(B, D)`.
        kl_weight, tc_weight: as given by `weights`; tensors without axes where several models train at once.
        total: size of the training set for the stratified estimate of the total correlation, None for the weighted one.

    Source: LF, App. C.3; Chen et al. (2018), Eq. 4.
    """
    logits, mean, log_std, sample = model(images, noise)
    spread = kl_weight * divergence(mean, log_std) + tc_weight * total_correlation(sample, mean, log_std, total)
    return reconstruction(images, logits) + spread


def reconstruction(images: Tensor, logits: Tensor) -> Tensor:
    """−log p(x|h) of Bernoulli pixels, summed over pixels, a mean over the batch (as in the released code).

    Raises:
        ValueError: pixels beyond [0, 1], for which it has no bound.
    """
    checks.probabilities("images", images)
    return F.binary_cross_entropy_with_logits(logits, images, reduction="sum") / len(images)


def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(µ, σ²) ‖ N(0, I)), summed over units, a mean over the batch `(B, D)`."""
    return (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1).mean() / 2


def total_correlation(sample: Tensor, mean: Tensor, log_std: Tensor, total: int | None = None) -> Tensor:
    """Estimate KL(q(h) ‖ ∏ q(h_j)) from one batch, where q(h) mixes the posteriors of the whole training set.

    Args:
        sample, mean, log_std: `(B, D)`, B ≥ 2; sample i comes from posterior i.
        total: N for the stratified estimate of q(h), None for the weighted one; see `mixture_weights`.

    Raises:
        ValueError: fewer than two rows, or a batch larger than the training set.

    Source: Chen et al. (2018), Section 4.1 and App. C.
    """
    log_weights = mixture_weights(len(sample), total).to(sample).log()
    scaled = (sample[:, None] - mean) * torch.exp(-log_std)
    log_density = -(scaled.square() + math.log(2 * math.pi)) / 2 - log_std  # (sample, posterior, unit)
    joint = torch.logsumexp(log_density.sum(2) + log_weights, 1)
    marginals = torch.logsumexp(log_density + log_weights[..., None], 1)
    return (joint - marginals.sum(1)).mean()


def mixture_weights(size: int, total: int | None = None) -> Tensor:
    """How much posterior j of a batch counts in the mixture that stands for q(h) at sample i, `(B, B)`; rows sum to 1.

    Weighted (`total` None): all alike, the batch's own mixture. Chen et al. divide by N once more, a constant that no
    gradient sees and that would raise the total correlation by (D − 1) log N.
    Stratified: unbiased. With M = B − 1 other images of N, a sample's own posterior counts 1/N, one other (N − M)/(NM),
    the rest 1/M. The released code gives the first two to columns 0 and 1 of nearly every row, so that a sample's own
    posterior counts 1/M; here they are where the text has them.

    Raises:
        ValueError: B < 2, or N < B.

    >>> mixture_weights(3, 10)[0].tolist() == torch.tensor([0.1, 0.4, 0.5]).tolist()
    True
    """
    if size < 2 or (total is not None and total < size):
        raise ValueError(f"A batch must hold 2 images at least and no more than total={total}, got {size}.")
    if total is None:
        return torch.full((size, size), 1 / size)
    others = size - 1
    weights = torch.full((size, size), 1 / others).fill_diagonal_(1 / total)
    place = torch.arange(size)
    weights[place, (place + 1) % size] = (total - others) / (total * others)
    return weights
