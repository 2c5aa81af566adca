"""What a good mask is: it keeps the representation where it was, is small, and leaves nothing of it behind."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]


def halved(first: Tensor, second: Tensor) -> Tensor:
    """Return (1 − cos)/2 of rows `(B, D)`, a distance from 0 (alike) to 1 (opposite): what the text of NU calls for."""
    return (1 - torch.cosine_similarity(first, second, dim=-1)) / 2


def unhalved(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 − cos of rows `(B, D)`, from 0 (alike) to 2 (opposite): `halved` without its ½."""
    return 1 - torch.cosine_similarity(first, second, dim=-1)


def printed(first: Tensor, second: Tensor) -> Tensor:
    """Return −cos of rows `(B, D)`, as NU's Eqs. 8 and 9 print it."""
    return -torch.cosine_similarity(first, second, dim=-1)


@dataclass(frozen=True)
class Terms:
    """The parts of the objective, one number an image.

    Args:
        preservation: P_d, how far the masked image's representation lies from the whole one's (Eq. 2 or 8), `(B,)`.
        inverse: N_d, how far it lies from that of what the mask leaves out (Eq. 9), `(B,)`.
        size: the mask's L1 norm per pixel, in [0, 1], `(B,)`.
        preserve, sparsity: λ1 and λ2.
    """

    preservation: Tensor
    inverse: Tensor
    size: Tensor
    preserve: float
    sparsity: float

    @property
    def regulariser(self) -> Tensor:
        """B = −N_d P_d, which asks for binary masks (Eq. 4)."""
        return -self.inverse * self.preservation

    @property
    def loss(self) -> Tensor:
        """λ1 P_d + λ2 ‖m‖₁ + B (Eqs. 3 and 5), one number an image."""
        return self.preserve * self.preservation + self.sparsity * self.size + self.regulariser


@dataclass(frozen=True)
class Objective:
    """The NEM objective.

    Args:
        preserve: λ1, the price of moving the representation.
        sparsity: λ2, the price of a mask that keeps everything.
        distance: d, of rows `(B, D)` and `(B, D)`: `halved` or `unhalved` as the text means it, `printed` as Eqs. 8
            and 9 have it.
        fill: what a covered pixel becomes. 0 is pixel scaling, and the mean colour where images are normalised; for an
            encoder that normalises inside, the same scaling has that colour as fill.
        noise: mean and standard deviation of each channel, from `statistics`, for noise injection in place of a fill.

    Raises:
        ValueError: a price that is not a positive number, a fill that is none, or noise without finite statistics.

    Source:
        Møller et al. 2024, "Finding NEM-U", Eqs. 1 to 9; noise injection: Appendix B.2.
    """

    preserve: float = 1.5
    sparsity: float = 1.0
    distance: Distance = halved
    fill: float = 0.0
    noise: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self):
        for name, symbol in (("preserve", "λ1"), ("sparsity", "λ2")):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name} ({symbol}) must be a positive number, got {value!r}.")
        if not isinstance(self.fill, int | float) or not math.isfinite(self.fill):
            raise ValueError(f"fill must be a finite number, got {self.fill!r}.")
        if self.noise is not None:
            mean, deviation = (torch.as_tensor(each) for each in self.noise)
            if mean.shape != deviation.shape or not (mean.isfinite() & deviation.isfinite() & (deviation >= 0)).all():
                raise ValueError(f"noise must be a mean and a deviation ≥ 0 for each channel, got {self.noise!r}.")

    def halves(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the mask keeps and what it leaves out, `(B, C, H, W)` each (Eqs. 1, 6, 7).

        Args:
            images: `(B, C, H, W)`.
            masks: `(B, 1, H, W)` in [0, 1].
        """
        if self.noise is None:
            # With a fill of zero these are m ⊙ x and (1 − m) ⊙ x, to the last bit.
            change = images - self.fill
            halves = masks * change + self.fill, (1 - masks) * change + self.fill
        else:
            mean, deviation = (images.new_tensor(each).view(1, -1, 1, 1) for each in self.noise)
            if mean.shape[1] != images.shape[1]:
                raise ValueError(f"noise must be of {images.shape[1]} channels as the images, got {mean.shape[1]}.")
            noise = (mean + deviation * torch.randn_like(images)).to(masks.dtype)
            halves = torch.lerp(noise, images.to(masks.dtype), masks), torch.lerp(images.to(masks.dtype), noise, masks)
        return halves[0].to(images.dtype), halves[1].to(images.dtype)

    def terms(self, whole: Tensor, kept: Tensor, left: Tensor, masks: Tensor) -> Terms:
        """Return the objective's parts.

        Args:
            whole, kept, left: representations `(B, D)` of the image and its two halves.
            masks: `(B, 1, H, W)`.
        """
        # In half precision a squared norm overflows, and small distances vanish.
        whole, kept, left = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (whole, kept, left))
        preservation, inverse = self.distance(whole, kept), self.distance(kept, left)
        return Terms(preservation, inverse, masks.mean(dim=(1, 2, 3)), self.preserve, self.sparsity)

    def __call__(self, encoder: Callable[[Tensor], Tensor], images: Tensor, masks: Tensor) -> Terms:
        """Return the objective's parts for masks of any origin: three encoder passes.

        Args:
            encoder: f, `(B, C, H, W)` to `(B, D)`.
            images: `(B, C, H, W)`.
            masks: `(B, 1, H, W)` in [0, 1].
        """
        kept, left = self.halves(images, masks)
        return self.terms(*encoder(torch.cat([images, kept, left])).chunk(3), masks)


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel of images `(N, C, H, W)`, for noise injection."""
    columns = images.transpose(0, 1).flatten(1).to(torch.promote_types(images.dtype, torch.float32))
    return tuple(columns.mean(dim=1).tolist()), tuple(columns.std(dim=1).tolist())
