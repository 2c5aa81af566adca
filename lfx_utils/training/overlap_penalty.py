"""A penalty that makes the units of a VAE look at different pixels while it is trained."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lfx_utils.models import vae


def gradient_times_input(means: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Map each unit by `x_i ∂µ_j/∂x_i`, one step of Integrated Gradients from black, differentiable in the weights.

    Args:
        means: µ, from images `(B, C, H, W)` to `(B, D)`.
        images: x.

    Returns:
        `(B, D, C, H, W)`.
    """
    values, pull = torch.func.vjp(means, images)
    units = torch.eye(values.shape[1]).to(values)
    gradients = [pull(unit.expand_as(values))[0] for unit in units]
    return images[:, None] * torch.stack(gradients, 1)


def overlap(maps: Tensor) -> Tensor:
    """Cosine of two units' absolute maps, a mean over examples and pairs of units: 0 where no pixel matters to both.

    Args:
        maps: `(B, D, …)`, D ≥ 2.

    Returns:
        a scalar in [0, 1]; a unit whose map is zero overlaps with none.

    Raises:
        ValueError: maps of fewer than two units.
    """
    if maps.dim() < 3 or maps.shape[1] < 2:
        raise ValueError(f"maps must be (B, D, …), D ≥ 2, got {tuple(maps.shape)}.")
    units = F.normalize(maps.flatten(2).abs(), dim=2)
    j, k = torch.triu_indices(maps.shape[1], maps.shape[1], 1)
    return (units[:, j] * units[:, k]).sum(2).mean()


def objective(model, images: Tensor, noise: Tensor, kl_weight, tc_weight, strength, rows: int = 8) -> Tensor:
    """`vae.objective` plus `strength` nats times the overlap of the units' maps, on the batch's first images.

    Args:
        model: a `VAE`, or what acts like one.
        images: `(B, 1, S, S)`; the first `rows` are mapped, since each map costs a second derivative.
        noise, kl_weight, tc_weight: as in `vae.objective`.
        strength: λ, as weights are a number, or a tensor without axes where several models train at once.

    Source: LF, Section 4.3 (outlook); Erion et al. (2021) call such a penalty an attribution prior.
    """
    maps = gradient_times_input(lambda few: model(few).mean, images[:rows])
    return vae.objective(model, images, noise, kl_weight, tc_weight) + strength * overlap(maps)
