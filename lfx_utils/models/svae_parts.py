"""What the supervised VAE and M2 are made of: normal distributions, networks for both directions, checks."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEVIATION = 0.1  # of a pixel around the decoder's mean; with it Table 1's terms are errors below the mean image's


class Normal(NamedTuple):
    """Normal distributions with a diagonal covariance: µ and log σ, each `(B, D)`."""

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return µ + σ ⊙ ε, `(B, D)`."""
        return self.mean + self.log_std.exp() * noise

    def part(self, dims: slice) -> "Normal":
        """Return the marginal of some dimensions."""
        return Normal(self.mean[:, dims], self.log_std[:, dims])


def kl(first: Normal, second: Normal | None = None) -> Tensor:
    """KL(first ‖ second) in nats, `(B,)`; the second is N(0, I) when left out.

    >>> kl(Normal(torch.ones(1, 3), torch.zeros(1, 3))).item()
    1.5
    """
    second = second or Normal(torch.zeros_like(first.mean), torch.zeros_like(first.mean))
    ratio = 2 * (first.log_std - second.log_std)
    shift = (first.mean - second.mean) * torch.exp(-second.log_std)
    return (ratio.exp() + shift.square() - 1 - ratio).sum(1) / 2


def log_likelihood(images: Tensor, means: Tensor) -> Tensor:
    """Return log p(x | z) of pixels N(mean, DEVIATION²), summed over pixels, `(B,)`."""
    scaled = (images - means).flatten(1) / DEVIATION
    return -(scaled.square().sum(1) / 2 + scaled.shape[1] * math.log(DEVIATION * math.sqrt(2 * math.pi)))


def dense(shape: tuple[int, int, int], latent: int, width: int = 256) -> tuple[nn.Module, nn.Module, int]:
    """Return trunk, decoder and number of features for images of `shape`: two hidden layers each way."""
    pixels = math.prod(shape)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    decoder = nn.Sequential(
        nn.Linear(latent, width), nn.ReLU(),
        nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, pixels), nn.Sigmoid(), nn.Unflatten(1, shape),
    )  # fmt: skip
    return trunk, decoder, width


def convolutional(shape: tuple[int, int, int], latent: int, width: int = 32) -> tuple[nn.Module, nn.Module, int]:
    """Return trunk, decoder and number of features: three convolutions each way, for sides that 8 divides."""
    channels, height, across = shape
    if height % 8 or across % 8:
        raise ValueError(f"shape must have sides that 8 divides, got {shape}.")
    small = (2 * width, height // 8, across // 8)
    flat, features = math.prod(small), 8 * width
    down = {"kernel_size": 4, "stride": 2, "padding": 1}
    trunk = nn.Sequential(
        nn.Conv2d(channels, width, **down), nn.ReLU(),
        nn.Conv2d(width, 2 * width, **down), nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, **down), nn.ReLU(),
        nn.Flatten(), nn.Linear(flat, features), nn.ReLU(),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(latent, features), nn.ReLU(),
        nn.Linear(features, flat), nn.ReLU(), nn.Unflatten(1, small),
        nn.ConvTranspose2d(2 * width, 2 * width, **down), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, **down), nn.ReLU(),
        nn.ConvTranspose2d(width, channels, **down), nn.Sigmoid(),
    )  # fmt: skip
    return trunk, decoder, features


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Return labels `(B,)` as rows of zeros with a one, `(B, classes)`; raise ValueError for labels outside them."""
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise ValueError(f"labels must be int64 of shape (B,), got {labels.dtype} of shape {tuple(labels.shape)}.")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels must lie in 0 … {classes - 1}, got {int(labels.min())} … {int(labels.max())}.")
    return F.one_hot(labels, classes)


def positive(alpha: float) -> float:
    """Return α if it is positive and finite; raise ValueError otherwise."""
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be positive and finite, got {alpha}.")
    return alpha


def head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a network with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def normal(outputs: Tensor) -> Normal:
    """Read outputs `(B, 2 D)` as µ and log σ."""
    return Normal(*outputs.chunk(2, 1))
