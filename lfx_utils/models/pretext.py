"""Four ways to train an encoder, as modules that return their loss: supervised, SimCLR, SwAV and DINO."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .simclr import nt_xent
from .views import multicrop, versions, views


def encode(encoder: nn.Module, images: Tensor) -> Tensor:
    """Run the encoder, channels last, in bfloat16 where that is faster; representations `(B, D)` in float32."""
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=halves(images.device)):
        return encoder(images).float()


def halves(device: torch.device) -> bool:
    """Tell whether bfloat16 is faster than float32: a processor without its instructions is six times slower in it."""
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


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
