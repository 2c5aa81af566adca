"""Random masks: which parts of an input stay, and what stands where a part was taken away.

A family of masks is called with how many, the masked axes' sizes and a `torch.Generator`, and returns `(N, H, W)` for
images or `(N, T)` for sequences, values in [0, 1], 1 where the input stays. A function of yours can take its place.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

Masks = Callable[[int, tuple[int, ...], torch.Generator], Tensor]
Fill = Callable[[Tensor, int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Cells:
    """Coarse cells that stay with probability p, upsampled to smooth masks and shifted at random.

    As in the paper's text (after RISE) cells are upsampled to one cell more than the input in each direction, and a
    random crop is taken. The released code upsamples to the input's size and shifts that by up to as many pixels as
    there are cells, borders reflected: places at the cells' centres are then resolved better than those between.

    Args:
        grid: cells in each direction, h × w, or one number for all.
        p: the probability that a cell stays.
        released: as the released code makes them.

    Source:
        Wickstrøm et al. 2023, Section 3.1, "Masking distribution"; PyPI `relax-xai` 0.0.5. Where a cell is not a whole
        number of pixels, its size is rounded up, since rounded down the crop can be larger than what it is taken from.

    >>> Cells(7)(5, (28, 28), torch.Generator()).shape
    torch.Size([5, 28, 28])
    """

    grid: int | tuple[int, ...] = 7
    p: float = 0.5
    released: bool = False

    def __post_init__(self):
        _probability(self.p)

    def __call__(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return `count` masks `(count, *shape)`."""
        axes = self.axes(shape)
        device = generator.device
        grid = [axis.shape[2] for axis in axes]
        masks = torch.rand(count, *grid, generator=generator, device=device).lt(self.p).float()
        for axis in axes:
            shift = torch.randint(len(axis), (count,), generator=generator, device=device)
            # The first coarse axis leaves and its fine one comes last, so that in the end all are in order again.
            masks = torch.einsum("nsc,nc...->n...s", axis.to(device)[shift], masks)
        return masks

    def axes(self, shape: tuple[int, ...]) -> list[Tensor]:
        """Return, for each axis, what takes cells to pixels, `(shifts, size, cells)`; masks are linear in the cells.

        Raises:
            ValueError: more cells than pixels, or a grid for another number of axes.
        """
        grid = self.grid if isinstance(self.grid, tuple) else (self.grid,) * len(shape)
        if len(grid) != len(shape) or any(not 1 <= cells <= size for cells, size in zip(grid, shape, strict=False)):
            raise ValueError(
                f"grid must be between 1 and the input's size {tuple(shape)} on each masked axis, got {self.grid}."
            )
        return [_interpolation(size, cells, self.released) for size, cells in zip(shape, grid, strict=True)]


@dataclass(frozen=True)
class Pixels:
    """Pixels that stay with probability p, each for itself: dropout on the input (Fig. B1)."""

    p: float = 0.5

    def __post_init__(self):
        _probability(self.p)

    def __call__(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return `count` masks `(count, *shape)`."""
        return torch.rand(count, *shape, generator=generator, device=generator.device).lt(self.p).float()


@dataclass(frozen=True)
class Blocks:
    """Blocks of `size` pixels a side, dropped anywhere such that each pixel stays with probability p (Fig. B1)."""

    size: int = 32
    p: float = 0.5

    def __post_init__(self):
        _probability(self.p)

    def __call__(self, count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return `count` masks `(count, *shape)`."""
        if len(shape) > 3:
            raise ValueError(f"Blocks masks up to 3 axes, got {len(shape)}; Cells and Pixels mask any number.")
        if not 1 <= self.size <= min(shape):
            raise ValueError(f"size must be between 1 and the input's {min(shape)} pixels, got {self.size}.")
        # Blocks may begin outside, so that border pixels lie in as many of them as all others.
        corners = [length + self.size - 1 for length in shape]
        stays = self.p ** (1 / self.size ** len(shape))
        drops = torch.rand(count, 1, *corners, generator=generator, device=generator.device).ge(stays).float()
        pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[len(shape)]
        for axis in range(len(shape)):  # one after the other: the largest of the largest
            drops = pool(drops, [self.size if axis == other else 1 for other in range(len(shape))], stride=1)
        return 1 - drops.squeeze(1)


def noise(mean: Tensor | float, std: Tensor | float) -> Fill:
    """Fill with fresh normal noise for every mask, each pixel with its mean and deviation over the data (Eq. A1).

    The paper prints x ⊙ m − d ⊙ (1 − m); with a plus, as here, the data's mean intensity is kept, which is its purpose.

    Args:
        mean, std: a number, or a tensor that broadcasts with one input `(C, H, W)`.
    """

    def draw(inputs: Tensor, count: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(1, count, *inputs.shape[1:], generator=generator, device=inputs.device, dtype=inputs.dtype)
        return mean + std * drawn

    return draw


def blur(sigma: float) -> Fill:
    """Fill with the image itself, blurred by a Gaussian of `sigma` pixels."""

    def draw(inputs: Tensor, count: int, generator: torch.Generator) -> Tensor:
        if inputs.dim() != 4:
            raise ValueError(f"blur fills images (B, C, H, W), got {tuple(inputs.shape)}.")
        from torchvision.transforms.functional import gaussian_blur  # slow to import, and needed here alone

        # A kernel reaches three deviations, but the border is mirrored and so must be longer than half of it.
        reach = min(math.ceil(3 * sigma), min(inputs.shape[2:]) - 1)
        return gaussian_blur(inputs, 2 * reach + 1, sigma)[:, None]

    return draw


@lru_cache(maxsize=16)
def _interpolation(size: int, cells: int, released: bool) -> Tensor:
    """Return the bilinear weights of one axis at each of its shifts, `(shifts, size, cells)`."""
    side = math.ceil(size / cells)
    length = size if released else (cells + 1) * side
    weights = functional.interpolate(torch.eye(cells)[None], size=length, mode="linear", align_corners=False)
    if released:
        margin = cells // 2
        weights = functional.pad(weights, (margin, margin), mode="reflect") if margin else weights
        side = cells
    return weights[0].unfold(1, size, 1)[:, :side].permute(1, 2, 0)  # A view, else size² large.


def _probability(p: float) -> None:
    if not 0 < p < 1:
        raise ValueError(f"p must lie strictly between 0 and 1, since other masks keep or drop everything, got {p}.")
