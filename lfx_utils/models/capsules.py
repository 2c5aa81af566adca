"""The Stacked Capsule Autoencoder: an image as a few learned templates, each moved to its place by a pose.

Sections and symbols are those of Kosiorek, Sabour, Teh and Hinton 2019, Stacked Capsule Autoencoders (NeurIPS).
Langezaal et al. 2023 (App. D) take the part capsules as the encoder f, the object capsules as the decoder.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = dict(parts=10, objects=10, features=4, channels=32)
"""Arguments of a `StackedCapsules` that two CPU cores train in half a minute; the defaults are the paper's sizes."""


class Parts(NamedTuple):
    """What the part capsules see in a batch of images, M parts each (Section 2.2)."""

    pose: Tensor  # x_m  (B, M, 6): horizontal and vertical shift, width, height, angle, shear
    presence: Tensor  # d_m  (B, M) in [0, 1]
    features: Tensor  # z_m  (B, M, F)
    templates: Tensor  # T̂_m (B, M, H, W) in [0, 1], the templates moved by their poses
    means: Tensor  # c_m T̂_m (B, M + 1, H, W), the intensity each mixture component predicts; the background comes last
    weights: Tensor  # (B, M + 1, H, W), mixing probabilities that sum to one at each pixel


class Objects(NamedTuple):
    """What the object capsules make of M parts, K objects each (Section 2.3)."""

    votes: Tensor  # V_km (B, K, M, 6), the part poses each object predicts, as the rows of a 2 × 3 matrix
    scale: Tensor  # λ_km (B, K, M), standard deviation of a vote
    presence: Tensor  # a_k (B, K), as log-probability
    part_presence: Tensor  # a_km (B, K, M), as log-probability
    deformation: Tensor  # (B, K, M, 6), how far an object bends its resting shape


def affine(pose: Tensor) -> Tensor:
    """Matrix that takes a template's coordinates to the image's, both in [-1, 1]: rotate · shear · scale, then shift.

    Args:
        pose: `(…, 6)`: shift x, shift y, width, height, angle in radians, shear.

    Returns:
        `(…, 2, 3)`.

    >>> affine(torch.tensor([0.5, 0.0, 1.0, 2.0, 0.0, 0.0]))
    tensor([[1.0000, 0.0000, 0.5000],
            [0.0000, 2.0000, 0.0000]])
    """
    x, y, width, height, angle, shear = pose.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    across = torch.stack([cos * width, (shear * cos - sin) * height, x], -1)
    down = torch.stack([sin * width, (shear * sin + cos) * height, y], -1)
    return torch.stack([across, down], -2)


def transform(templates: Tensor, pose: Tensor, size: int) -> Tensor:
    """Draw each template on an empty canvas where its pose says (T̂_m, Section 2.2).

    Args:
        templates: `(M, t, t)`.
        pose: `(B, M, 6)` with positive width and height.
        size: side of the square canvas.

    Returns:
        `(B, M, size, size)`, zero where no template reaches.
    """
    linear, shift = affine(pose).flatten(0, 1).split([2, 1], dim=-1)
    (a, b), (c, d) = (row.unbind(-1) for row in linear.unbind(-2))
    # A canvas pixel asks where in the template it comes from, so the sampling grid needs the inverse of the pose.
    inverse = torch.stack([d, -b, -c, a], -1).unflatten(-1, (2, 2)) / (a * d - b * c)[:, None, None]
    matrix = torch.cat([inverse, -inverse @ shift], -1)
    grid = F.affine_grid(matrix, [len(matrix), 1, size, size], align_corners=True)
    copies = templates.expand(len(pose), *templates.shape).flatten(0, 1)[:, None]
    return F.grid_sample(copies, grid, align_corners=True).view(*pose.shape[:2], size, size)


def bounded(raw: Tensor) -> Tensor:
    """Squash six free numbers `(…, 6)` into a pose: shift and shear in (-1, 1), sides in (0.1, 1), angle in (-π, π)."""
    shift, side, angle, shear = raw.split([2, 2, 1, 1], dim=-1)
    return torch.cat([shift.tanh(), 0.1 + 0.9 * side.sigmoid(), math.pi * angle.tanh(), shear.tanh()], -1)


def image_log_likelihood(images: Tensor, means: Tensor, weights: Tensor, sigma: float) -> Tensor:
    """Log-density of each image, its pixels independent mixtures of Gaussians (Section 2.2).

    Args:
        images: `(B, 1, H, W)`.
        means, weights: `(B, C, H, W)`, weights positive for at least one component at every pixel.
        sigma: the components' common standard deviation.

    Returns:
        `(B,)`.
    """
    density = (-0.5 * ((images - means) / sigma) ** 2).exp() / (sigma * math.sqrt(2 * math.pi))
    return (weights * density).sum(1).log().sum((-2, -1))


def part_log_likelihood(matrices: Tensor, presence: Tensor, objects: Objects) -> tuple[Tensor, Tensor]:
    """Log-density of each image's part poses, every part a mixture over the objects' votes (Section 2.3).

    Args:
        matrices: `(B, M, 6)`, the poses as flattened matrices.
        presence: `(B, M)`, the exponent d_m of a part's density.
        objects: what the object capsules predict.

    Returns:
        `(B,)` and the probability `(B, K, M)` that a part belongs to an object.
    """
    logits = objects.presence[..., None] + objects.part_presence
    error = (matrices[:, None] - objects.votes) / objects.scale[..., None]
    density = (-0.5 * error**2 - objects.scale[..., None].log() - 0.5 * math.log(2 * math.pi)).sum(-1)
    total = objects.presence.logsumexp(1) + objects.part_presence.logsumexp((1, 2))
    part = (logits + density).logsumexp(1) - total[:, None]
    return (presence * part).sum(1), (logits + density).softmax(1)


class PartCapsules(nn.Module):
    """The Part Capsule Autoencoder (Section 2.2): sees parts in an image and draws them with learned templates.

    A mixing weight is presence × opacity × the moved template's intensity, so what is dark is transparent.

    Args:
        parts: M.
        features: F, size of z_m, from which a part's brightness c_m and opacity are computed.
        channels: of the four convolutions.
        size: side of the square, single-channel images.
        template: side of the square templates.
    """

    def __init__(self, parts: int = 24, features: int = 16, channels: int = 128, size: int = 28, template: int = 11):
        super().__init__()
        self.size, self.sizes = size, [6, 1, features]
        self.latent_size = parts * (sum(self.sizes) + size**2)
        convolutions = []
        for before, stride in zip([1, channels, channels, channels], [2, 2, 1, 1]):
            convolutions += [nn.Conv2d(before, channels, 3, stride, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*convolutions)
        self.attention = nn.Conv2d(channels, parts, 1, bias=False)
        self.capsules = nn.Conv2d(channels, parts * sum(self.sizes), 1)
        self.look = nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 2), nn.Sigmoid())
        self.templates = nn.Parameter(torch.randn(parts, template, template))
        self.background = nn.Parameter(torch.tensor(-2.0))
        with torch.no_grad():  # parts that start in different places do not have to be told apart first
            self.capsules.bias.view(parts, -1)[:, :2].normal_(std=0.5)

    def forward(self, images: Tensor) -> Parts:
        """See the parts of `images` `(B, 1, size, size)`.

        Raises:
            ValueError: images of another shape.
        """
        if images.dim() != 4 or images.shape[1:] != (1, self.size, self.size):
            raise ValueError(f"images must have shape (B, 1, {self.size}, {self.size}), got {tuple(images.shape)}.")
        seen = self.convolutions(images)
        where = self.attention(seen).flatten(2).softmax(-1)
        what = self.capsules(seen).flatten(2).unflatten(1, (where.shape[1], -1))
        pose, presence, features = (what * where[:, :, None]).sum(-1).split(self.sizes, dim=-1)
        if self.training:  # noise drives presences away from one half (as the released model does)
            presence = presence + 4 * torch.rand_like(presence) - 2
        pose, presence = bounded(pose), presence[..., 0].sigmoid()
        templates = transform(self.templates.sigmoid(), pose, self.size)
        brightness, opacity = self.look(features)[..., None, None].unbind(2)
        means = brightness * templates
        weights = presence[..., None, None] * opacity * templates
        weights = torch.cat([weights, self.background.exp().expand_as(weights[:, :1])], 1)
        means = torch.cat([means, torch.zeros_like(means[:, :1])], 1)
        return Parts(pose, presence, features, templates, means, weights / weights.sum(1, keepdim=True))


class CapsuleEncoder(nn.Module):
    """Part capsules as an encoder: each part's pose, presence, features and moved template, stacked (RE App. D.1).

    Args:
        parts: the part capsules.

    Returns:
        From images `(B, 1, H, W)`, latents `(B, M · (6 + 1 + F + H · W))`.
    """

    def __init__(self, parts: PartCapsules):
        super().__init__()
        self.parts = parts

    def forward(self, images: Tensor) -> Tensor:
        seen = self.parts(images)
        return torch.cat([seen.pose, seen.presence[..., None], seen.features, seen.templates.flatten(2)], -1).flatten(1)
