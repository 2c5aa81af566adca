"""Random views of images, a batch at a time, for the encoders that learn from comparing them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


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
