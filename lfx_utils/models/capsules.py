"""The Stacked Capsule Autoencoder: an image as a few learned templates, each moved to its place by a pose.

Sections and symbols are those of Kosiorek, Sabour, Teh, Hinton 2019, Stacked Capsule Autoencoders (NeurIPS).
RE (Langezaal et al. 2023, App. D) takes the part capsules for the encoder f, the object capsules for the decoder.
Deviations: 28 × 28 images, not 40 × 40; a template's intensity is its alpha channel too; a learned map tells pooled
features where they were; presences carry no noise; templates start as blobs. They make it learn digits in a minute.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lfx_utils import checks

SMALL = {"parts": 10, "objects": 10, "features": 4, "channels": 32}  # two cores train it in half a minute


class Parts(NamedTuple):
    """What the part capsules see in B images: M parts each (Section 2.2)."""

    pose: Tensor  # x_m (B, M, 6): shift x, shift y, width, height, angle, shear
    presence: Tensor  # d_m (B, M) in [0, 1]
    features: Tensor  # z_m (B, M, F), which say the next two
    brightness: Tensor  # c_m (B, M) in [0, 1]
    opacity: Tensor  # (B, M) in [0, 1]
    templates: Tensor  # T̂_m (B, M, H, W) in [0, 1], each where its pose moves it


class Objects(NamedTuple):
    """What the object capsules make of M parts: K objects, each with a vote for every part's pose (Section 2.3)."""

    presence: Tensor  # a_k a_km (B, K, M) in [0, 1]: the object is there and has the part
    votes: Tensor  # V_km (B, K, M, 6), flattened 2 × 3 matrices
    scale: Tensor  # λ_km (B, K, M, 1), standard deviation of a vote
    bend: Tensor  # (B, K, 6 M), how far an object is bent from its resting shape


def affine(pose: Tensor) -> Tensor:
    """Matrix `(…, 2, 3)` of a `pose` `(…, 6)`, from a template's coordinates to the image's, both in [-1, 1].

    >>> affine(torch.tensor([0.5, 0.0, 1.0, 2.0, 0.0, 0.0]))  # shift x, shift y, width, height, angle, shear
    tensor([[1.0000, 0.0000, 0.5000],
            [0.0000, 2.0000, 0.0000]])
    """
    x, y, width, height, angle, shear = pose.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * width, (shear * cos - sin) * height, x, sin * width, (shear * sin + cos) * height, y]
    return torch.stack(rows, -1).unflatten(-1, (2, 3))


def bounded(raw: Tensor) -> Tensor:
    """Squash six free numbers `(…, 6)` to a pose: shift and shear in ±1, width and height 0.1 to 1, angle in ±π."""
    shift, side, angle, shear = raw.split([2, 2, 1, 1], dim=-1)
    return torch.cat([shift.tanh(), 0.1 + 0.9 * side.sigmoid(), math.pi * angle.tanh(), shear.tanh()], -1)


def transform(templates: Tensor, pose: Tensor, size: int) -> Tensor:
    """Draw `templates` `(M, t, t)` at `pose` `(B, M, 6)` on empty canvases: T̂ `(B, M, size, size)` (Section 2.2)."""
    matrix = affine(pose).flatten(0, 1)
    # A pixel of the canvas asks which place of the template it shows, so the grid wants the inverse.
    inverse = torch.linalg.inv(matrix[..., :2])
    inverse = torch.cat([inverse, -inverse @ matrix[..., 2:]], -1)
    grid = F.affine_grid(inverse, [len(inverse), 1, size, size], align_corners=True)
    copies = templates.expand(len(pose), -1, -1, -1).flatten(0, 1)[:, None]
    return F.grid_sample(copies, grid, align_corners=True).unflatten(0, pose.shape[:2])[:, :, 0]


def mixing(parts: Parts, background: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's mixing weights of the parts `(B, M, H, W)` and the black background `(B, H, W)` (Section 2.2)."""
    weights = (parts.presence * parts.opacity)[..., None, None] * parts.templates
    total = weights.sum(1) + background
    return weights / total[:, None], background / total


def image_log_likelihood(images: Tensor, parts: Parts, background: Tensor, sigma: float) -> Tensor:
    """Log-density `(B,)` of `images` `(B, 1, H, W)`: each pixel a mixture of Gaussians at c_m T̂_m (Section 2.2).

    Raises:
        ValueError: pixels beyond [0, 1], which no part can draw.
    """
    checks.probabilities("images", images)
    weights, rest = mixing(parts, background)
    bell = (-0.5 * ((images - parts.brightness[..., None, None] * parts.templates) / sigma) ** 2).exp()
    density = (weights * bell).sum(1) + rest * (-0.5 * (images[:, 0] / sigma) ** 2).exp()
    return (density.log() - math.log(sigma * math.sqrt(2 * math.pi))).sum((-2, -1))


def part_log_likelihood(poses: Tensor, presence: Tensor, objects: Objects) -> tuple[Tensor, Tensor]:
    """Log-density `(B,)` of `poses` `(B, M, 6)`, each a mixture of Gaussians at the objects' votes (Section 2.3).

    A part's `presence` `(B, M)` is its density's exponent; `(B, K, M)`, also returned, is whose part it likely is.
    """
    bell = torch.distributions.Normal(objects.votes, objects.scale, validate_args=False).log_prob(poses[:, None])
    joint = (objects.presence / objects.presence.sum((1, 2), keepdim=True)).log() + bell.sum(-1)
    return (presence * joint.logsumexp(1)).sum(1), joint.softmax(1)


class PartCapsules(nn.Module):
    """The Part Capsule Autoencoder (Section 2.2): sees an image's parts and draws them with learned templates.

    Args:
        parts, features: M and F, the size of z_m.
        channels: of each of the four convolutions.
        size, template: sides of the square images and templates, single-channel both.
    """

    def __init__(self, parts: int = 24, features: int = 16, channels: int = 128, size: int = 28, template: int = 11):
        super().__init__()
        self.size, self.sizes = size, [6, 1, features]
        self.convolutions = nn.Sequential()
        for before, stride in zip([1, channels, channels, channels], [2, 2, 1, 1], strict=True):
            self.convolutions.extend([nn.Conv2d(before, channels, 3, stride, padding=1), nn.ReLU()])
        self.places = nn.Parameter(0.1 * torch.randn(channels, -(-size // 4), -(-size // 4)))
        self.attention = nn.Conv2d(channels, parts, 1, bias=False)
        self.capsules = nn.Conv2d(channels, parts * sum(self.sizes), 1)
        self.look = nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 2), nn.Sigmoid())
        nn.init.normal_(self.capsules.bias, std=0.3)  # parts start apart, so need not first be told from each other
        self.log_background = nn.Parameter(torch.tensor(-2.0))
        bow = 0.25 - 1.5 * torch.linspace(-1, 1, template) ** 2
        self.logits = nn.Parameter(bow + bow[:, None] + 0.1 * torch.randn(parts, template, template))

    @property
    def templates(self) -> Tensor:
        """T_m `(M, t, t)` in [0, 1]; the factor lets them learn faster than the weights."""
        return (4 * self.logits).sigmoid()

    def forward(self, images: Tensor) -> Parts:
        """See the parts of `images` `(B, 1, size, size)`; ValueError for any other shape."""
        if images.dim() != 4 or images.shape[1:] != (1, self.size, self.size):
            raise ValueError(f"images must have shape (B, 1, {self.size}, {self.size}), got {tuple(images.shape)}.")
        seen = self.convolutions(images) + self.places
        where = self.attention(seen).flatten(2).softmax(-1)[..., None]
        what = self.capsules(seen).flatten(2).unflatten(1, (where.shape[1], -1)) @ where
        pose, presence, features = what[..., 0].split(self.sizes, dim=-1)
        pose, look = bounded(pose), self.look(features).unbind(-1)
        return Parts(pose, presence[..., 0].sigmoid(), features, *look, transform(self.templates, pose, self.size))


class CapsuleEncoder(nn.Module):
    """The part capsules as an encoder f: each part's pose, presence, features, moved template (RE, App. D.1)."""

    def __init__(self, parts: PartCapsules):
        super().__init__()
        self.origin = f"a capsule autoencoder of {len(parts.logits)} parts"
        self.parts = parts

    def forward(self, images: Tensor) -> Tensor:
        """Latents `(B, M · (6 + 1 + F + H · W))` of `images` `(B, 1, H, W)`."""
        pose, presence, features, _, _, templates = self.parts(images)
        return torch.cat([pose, presence[..., None], features, templates.flatten(2)], -1).flatten(1)


class ObjectCapsules(nn.Module):
    """The Object Capsule Autoencoder (Section 2.3): a set transformer sees K objects, which vote for M parts."""

    def __init__(self, parts: int, features: int, template: int, objects: int):
        super().__init__()
        block = {"d_model": 16, "nhead": 1, "dim_feedforward": 64, "dropout": 0.0, "batch_first": True}
        self.embed = nn.Linear(6 + features + template**2, 16)
        self.mingle = nn.TransformerEncoder(nn.TransformerEncoderLayer(**block), 3, enable_nested_tensor=False)
        self.seeds = nn.Parameter(torch.randn(objects, 16))
        self.pool = nn.TransformerDecoderLayer(**block)
        self.sizes = [1, parts, 6, parts, 6 * parts]
        self.hidden = nn.Parameter(torch.randn(objects, 16, 128) / 16**0.5)
        self.outputs = nn.Parameter(0.1 * torch.randn(objects, 128, sum(self.sizes)) / 128**0.5)
        self.shapes = nn.Parameter(0.5 * torch.randn(objects, parts, 6))

    def forward(self, parts: Parts, templates: Tensor) -> Objects:
        """Explain `parts` drawn with `templates` `(M, t, t)`; gradients reach only the features (Section 2.3)."""
        templates = templates.detach().flatten(1).expand(len(parts.pose), -1, -1)
        tokens = self.embed(torch.cat([affine(parts.pose).flatten(-2).detach(), parts.features, templates], -1))
        absence = parts.presence.detach().clamp(min=1e-6).log()  # added to the scores: an absent part is not seen
        seen = self.mingle(tokens, src_key_padding_mask=absence)
        seen = self.pool(self.seeds.expand(len(seen), -1, -1), seen, memory_key_padding_mask=absence)
        hidden = torch.einsum("bki,kih->bkh", seen, self.hidden).relu()  # a network for each object
        there, has, view, scale, bend = torch.einsum("bkh,kho->bko", hidden, self.outputs).split(self.sizes, dim=-1)
        view, relation = affine(bounded(view))[:, :, None], affine(bounded(self.shapes + bend.unflatten(-1, (-1, 6))))
        votes = (view[..., :2] @ relation + F.pad(view[..., 2:], (2, 0))).flatten(-2)
        return Objects(there.sigmoid() * has.sigmoid(), votes, F.softplus(scale + 0.5)[..., None] + 0.01, bend)


class StackedCapsules(nn.Module):
    """Part and object capsules, trained together on unlabelled images (Section 2.4).

    Args:
        objects, classes: K and C; about K / C objects are to explain an image.
        sigma: standard deviation of a pixel.
        sizes: arguments of `PartCapsules`.
    """

    def __init__(self, objects: int = 24, classes: int = 10, sigma: float = 0.25, **sizes: int):
        super().__init__()
        parts = PartCapsules(**sizes)
        self.encoder = CapsuleEncoder(parts)
        self.decoder = ObjectCapsules(len(parts.logits), parts.sizes[-1], parts.logits.shape[-1], objects)
        self.classes, self.sigma = classes, sigma

    def terms(self, images: Tensor) -> dict[str, Tensor]:
        """The loss of `images` `(B, 1, H, W)` term by term, each a mean with the released model's weight in it."""
        parts = self.encoder.parts(images)
        objects = self.decoder(parts, self.encoder.parts.templates)
        poses, presence = affine(parts.pose).flatten(-2).detach(), parts.presence.detach()
        drawn = image_log_likelihood(images, parts, self.encoder.parts.log_background.exp(), self.sigma)
        explained, belongs = part_log_likelihood(poses, presence, objects)
        active, used = objects.presence.amax(-1), (belongs * presence[:, None]).sum(-1).clamp(min=1e-9)
        used = used / used.sum(1, keepdim=True)
        return {
            "image": -drawn.mean(),
            "parts": -explained.mean(),
            "bend": 5 * objects.bend.square().sum((1, 2)).mean(),
            "active in an image": 2 * (active.sum(1) - active.shape[1] / self.classes).square().mean(),
            "active in the batch": 0.35 * (active.mean(0) - 1 / self.classes).square().mean(),
            "used in an image": 0.7 * torch.special.entr(used).sum(1).mean(),
            "used in the batch": -0.2 * torch.special.entr(used.mean(0)).sum(),
        }

    def loss(self, images: Tensor) -> Tensor:
        """Sum of `terms`, a scalar."""
        return sum(self.terms(images).values())

    def reconstruct(self, images: Tensor) -> Tensor:
        """Mean `(B, 1, H, W)` of the mixture that the part capsules see in `images`."""
        parts = self.encoder.parts(images)
        weights = mixing(parts, self.encoder.parts.log_background.exp())[0]
        return (weights * parts.brightness[..., None, None] * parts.templates).sum(1, keepdim=True)
