"""What every measure of a map starts from: maps `(B, 1, H, W)` that are finite, at a common scale."""

import torch
from torch import Tensor

from lfx_utils import checks


def rescale(maps: Tensor) -> Tensor:
    """Return each map moved and scaled to reach from 0 to 1; a constant map becomes 0.

    Similarities under masking hardly leave 1: the shares in an untouched RELAX map are all alike and say nothing.

    Args:
        maps: `(B, 1, H, W)`.

    Source:
        Møller et al. 2024, Section 4, for all maps before complexity, sparseness and relevance mass.
    """
    low, high = flat(maps).aminmax(dim=1)
    low, span = low.view(-1, 1, 1, 1), (high - low).view(-1, 1, 1, 1)
    return (checks.single(maps.detach()) - low) / torch.where(span > 0, span, 1)


def flat(maps: Tensor) -> Tensor:
    """Return maps `(B, 1, H, W)` as `(B, H·W)`, in single precision at least.

    Raises:
        TypeError, ValueError: maps of another shape or type, or not finite.
    """
    if checks.batch("maps", maps).dim() != 4 or maps.shape[1] != 1:
        raise ValueError(f"maps must have shape (B, 1, H, W), got {tuple(maps.shape)}; sum over channels first.")
    return checks.single(maps.detach()).flatten(1)
