"""Four ways to train an encoder, as modules that return their loss: supervised, SimCLR, SwAV and DINO."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .simclr import nt_xent


def views(images: Tensor, generator=None, area=(0.25, 1.0), size: int | None = None, colour: float = 1.0) -> Tensor:
    """Crop, turn over, recolour, blur and sometimes drain every image of a batch, each with draws of its own.

    SimCLR's family, a batch at a time: one grid samples all crops, one matrix an image turns hue, saturation and grey.

    Args:
        images: `(B, 3, S, S)` in [0, 1].
        generator: the source of randomness; the global one if absent.
        area: smallest and largest share of the image in a crop.
        size: side of the result, S if absent.
        colour: how strong the recolouring is, 0 for none.

    Returns:
        `(B, 3, size, size)` in [0, 1].

    Source: Chen et al. (2020), Appendix A.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), generator=generator)

    side = size or images.shape[-1]
    extent, ratio = uniform(*area).sqrt(), torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)) / 2)
    width, height = (extent * ratio).clamp(max=1), (extent / ratio).clamp(max=1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = flip * width, uniform(-1, 1) * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, [len(images), 3, side, side], align_corners=False)
    crops = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    if colour:
        # Hue turns about the grey axis, saturation shrinks towards it: one 3 × 3 matrix an image does both.
        recoloured = uniform(0, 1) < 0.8
        angle = torch.where(recoloured, 0.2 * 2 * math.pi * colour * uniform(-1, 1), 0)
        saturation = torch.where(recoloured, 1 + 0.8 * colour * uniform(-1, 1), 1)
        saturation = torch.where(uniform(0, 1) < 0.2 * colour, 0, saturation.clamp(min=0))
        contrast = torch.where(recoloured, 1 + 0.6 * colour * uniform(-1, 1), 1)[:, None, None, None]
        light = torch.where(recoloured, 1 + 0.6 * colour * uniform(-1, 1), 1)[:, None, None, None]
        grey = torch.full((3, 3), 1 / 3)
        across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
        matrix = angle.cos()[:, None, None] * (torch.eye(3) - grey) + angle.sin()[:, None, None] * across
        matrix = grey + saturation[:, None, None] * matrix
        crops = torch.bmm(matrix, crops.flatten(2)).view_as(crops)
        mean = crops.mean((1, 2, 3), keepdim=True)
        crops = light * (mean + contrast * (crops - mean))
        blurred = F.avg_pool2d(F.pad(crops, (1, 1, 1, 1), mode="replicate"), 3, 1)
        crops = torch.lerp(crops, blurred, uniform(-1, 1).clamp(min=0)[:, None, None, None])
    return crops.clamp(0, 1)


def versions(images: Tensor) -> tuple[Tensor, Tensor]:
    """Give two versions of each image to make views of: twice the same, or the second on another image's ground.

    Args:
        images: `(B, 1, 3, S, S)`; or `(B, 2, 3, S, S)`, each image followed by its ground without the objects.

    Returns:
        Two batches `(B, 3, S, S)`.

    Source: Ryali et al. (2021), background augmentations.
    """
    first = images[:, 0]
    if images.shape[1] == 1:
        return first, first
    empty = images[:, 1]
    return first, torch.where((first != empty).any(1, keepdim=True), first, empty.roll(1, 0))


def multicrop(images: Tensor, generator, area: float) -> tuple[Tensor, Tensor]:
    """One view of each version with at least a share `area` of it, and one at half the side with less.

    Returns:
        `(2B, 3, S, S)` and `(2B, 3, S/2, S/2)`.

    Source: Caron et al. (2020), Section 3.2.
    """
    pair, side = versions(images), images.shape[-1] // 2
    whole = torch.cat([views(version, generator, (area, 1.0)) for version in pair])
    return whole, torch.cat([views(version, generator, (0.4 * area, area), side) for version in pair])


def encode(encoder: nn.Module, images: Tensor) -> Tensor:
    """Run the encoder in bfloat16 where that is safe, channels last; representations `(B, D)` in float32."""
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16):
        return encoder(images).float()


def projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two linear layers with batch norm between them, `(B, inputs)` to `(B, outputs)`."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


class Supervised(nn.Module):
    """A linear layer on the representation tells which classes occur: a binary cross-entropy for each."""

    def __init__(self, encoder: nn.Module, features: int, area: float, classes: int):
        super().__init__()
        self.encoder, self.head, self.area = encoder, nn.Linear(features, classes), area

    def forward(self, images: Tensor, labels: Tensor, generator=None) -> Tensor:
        """Return the mean loss on images `(B, 1, 3, S, S)` with labels bool `(B, C)`, in nats a class."""
        seen = views(images[:, 0], generator, (self.area, 1.0), colour=0.5)
        return F.binary_cross_entropy_with_logits(self.head(encode(self.encoder, seen)), labels.float())

    def after_step(self) -> None:
        """Do nothing."""


class SimCLR(nn.Module):
    """Two views of an image are each other's positives, all other views of the batch are negatives.

    Source: Chen et al. (2020), Section 2.
    """

    def __init__(self, encoder: nn.Module, features: int, area: float, temperature: float = 0.2):
        super().__init__()
        self.encoder, self.head = encoder, projector(features, 256, 96)
        self.area, self.temperature = area, temperature

    def forward(self, images: Tensor, labels: Tensor, generator=None) -> Tensor:
        """Return the loss on images as `versions` takes them; labels are not used."""
        pair = torch.cat([views(version, generator, (self.area, 1.0)) for version in versions(images)])
        return nt_xent(*self.head(encode(self.encoder, pair)).chunk(2), self.temperature)

    def after_step(self) -> None:
        """Do nothing."""


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Turn scores `(B, K)` into assignments whose rows sum to 1 and whose columns share the batch evenly, nearly.

    The entropic transport plan between the batch and the prototypes, times B; more iterations make the columns' sums
    B/K more exactly.

    Source: Caron et al. (2020), SwAV, Eqs. 3–5; Cuturi (2013).
    """
    log_plan = scores / epsilon
    for _ in range(iterations):
        log_plan = log_plan - log_plan.logsumexp(0)
        log_plan = log_plan - log_plan.logsumexp(1, keepdim=True)
    return log_plan.exp()


class SwAV(nn.Module):
    """Predict a view's assignment to prototypes from another view; two whole views, two small ones.

    Source: Caron et al. (2020), Eqs. 1–5.
    """

    def __init__(self, encoder: nn.Module, features: int, area: float, prototypes: int = 128, temperature: float = 0.1):
        super().__init__()
        self.encoder, self.head = encoder, projector(features, 256, 64)
        self.area, self.temperature = area, temperature
        self.prototypes = nn.Linear(64, prototypes, bias=False)

    def forward(self, images: Tensor, labels: Tensor, generator=None) -> Tensor:
        """Return the loss on images as `versions` takes them; labels are not used."""
        whole, small = multicrop(images, generator, self.area)
        latents = torch.cat([encode(self.encoder, whole), encode(self.encoder, small)])
        scores = self.prototypes(F.normalize(self.head(latents), dim=1)).chunk(4)
        return swapped(scores, self.temperature)

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring the prototypes back to length 1."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))


def swapped(scores: tuple[Tensor, ...], temperature: float) -> Tensor:
    """Cross-entropy of every view's softmax with the assignments of the other of the first two views.

    Args:
        scores: V views' scores `(B, K)`; the first two also give the assignments.
        temperature: divides the scores in the softmax.

    Source: Caron et al. (2020), Eq. 2 and Section 3.2.
    """
    losses = []
    for view in (0, 1):
        target = sinkhorn(scores[view], 0.03)
        losses += [
            -(target * F.log_softmax(other / temperature, 1)).sum(1).mean()
            for place, other in enumerate(scores)
            if place != view
        ]
    return torch.stack(losses).mean()


class DINO(nn.Module):
    """A student predicts what its own moving average, the teacher, makes of another view; no negatives.

    The teacher's outputs are balanced by `sinkhorn`, as in DINOv2: with DINO's own centring, runs as short as ours end
    with the same answer to every image.

    Source: Caron et al. (2021), DINO, Algorithm 1; Oquab et al. (2024), DINOv2, Section 4.
    """

    def __init__(self, encoder: nn.Module, features: int, area: float, outputs: int = 256, momentum: float = 0.99):
        super().__init__()
        self.encoder, self.area = encoder, area
        self.head = nn.Sequential(nn.Linear(features, 256), nn.GELU(), nn.Linear(256, 64))
        self.prototypes = nn.Linear(64, outputs, bias=False)
        self.teacher = copy.deepcopy(nn.ModuleList([self.encoder, self.head, self.prototypes])).requires_grad_(False)
        self.momentum = momentum

    def forward(self, images: Tensor, labels: Tensor, generator=None) -> Tensor:
        """Return the loss on images as `versions` takes them; labels are not used."""
        whole, small = multicrop(images, generator, self.area)
        parts = self.encoder, self.head, self.prototypes
        student = torch.cat([self._outputs(*parts, whole), self._outputs(*parts, small)]).chunk(4)
        with torch.no_grad():
            targets = tuple(sinkhorn(scores, 0.02) for scores in self._outputs(*self.teacher, whole).chunk(2))
        return distillation(student, targets)

    def _outputs(self, encoder, head, prototypes, images: Tensor) -> Tensor:
        return F.linear(F.normalize(head(encode(encoder, images)), dim=1), F.normalize(prototypes.weight, dim=1))

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher towards the student."""
        for old, new in zip(self.teacher, (self.encoder, self.head, self.prototypes)):
            average(old, new, self.momentum)


def distillation(student: tuple[Tensor, ...], targets: tuple[Tensor, ...], temperature: float = 0.1) -> Tensor:
    """Mean cross-entropy of the student's views with the teacher's, a view with itself left out.

    Args:
        student: V views' outputs `(B, K)`, the teacher's views first.
        targets: the teacher's probabilities `(B, K)` on its views.
        temperature: the student's.

    Source: Caron et al. (2021), Eq. 3.
    """
    losses = [
        -(target * F.log_softmax(output / temperature, 1)).sum(1).mean()
        for place, target in enumerate(targets)
        for view, output in enumerate(student)
        if view != place
    ]
    return torch.stack(losses).mean()


@torch.no_grad()
def average(old: nn.Module, new: nn.Module, momentum: float) -> None:
    """Replace every parameter of `old` by momentum · old + (1 − momentum) · new, and copy the buffers."""
    for kept, fresh in zip(old.parameters(), new.parameters()):
        kept.lerp_(fresh, 1 - momentum)
    for kept, fresh in zip(old.buffers(), new.buffers()):
        kept.copy_(fresh)
