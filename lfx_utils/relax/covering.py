"""Inputs under masks, filled where these are 0: what the encoder sees."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lfx_utils.relax.masks import Fill

AT_ONCE = 64 * 3 * 224 * 224  # Values that go through the encoder at once unless the user says so.
DRAWN = 2**23  # Pixels of masks drawn at once: 128 masks up to 256×256.


def parts(size: int, step: int) -> list[slice]:
    """Return slices that cut `size` rows into pieces of `step`."""
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def affordable(views: tuple[Tensor, ...]) -> int:
    """Return how many rows may go through the encoder at once: 64, or as many as have the size of 64 photographs."""
    return max(1, min(64, AT_ONCE // sum(view[0].numel() for view in views)))


def block(shapes: list[tuple[int, ...]]) -> int:
    """Return how many masks to draw at once, which depends on nothing but their size, so that no batch size matters."""
    return max(1, min(128, DRAWN // max(torch.Size(shape).numel() for shape in shapes)))


def placed(masks: Tensor, view: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return masks `(N, H, W)` as `(N, 1, H, W)`, as they broadcast with inputs."""
    shape = [len(masks)] + [1] * (view.dim() - 1)
    for dim, size in zip(dims, masks.shape[1:], strict=True):
        shape[dim] = size
    return masks.view(shape)


def filling(fill: float | Tensor | Fill, view: Tensor, count: int, generator: torch.Generator) -> float | Tensor:
    """Return a number, or `(B or 1, N or 1, …)` for `count` masks.

    Raises:
        ValueError: a tensor that is not finite or does not broadcast with the inputs.
    """
    if callable(fill):
        return fill(view, count, generator)
    if not isinstance(fill, Tensor):
        return fill
    if not torch.isfinite(fill).all() or _broadcast(fill, view) != view.shape:
        raise ValueError(f"fill must be finite and broadcast with inputs {tuple(view.shape)}, got {tuple(fill.shape)}.")
    return fill.expand_as(view)[:, None]


def pairs(size: int, count: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Return inputs and masks to pair with one another, such that no pairing has more than `rows` rows."""
    for some in parts(size, rows):
        for few in parts(count, rows // (some.stop - some.start)):
            yield some, few


def covered(view: Tensor, masks: Tensor, fill: float | Tensor, some: slice, few: slice) -> Tensor:
    """Return the inputs `some` under each of the masks `few`, `(inputs · masks, …)`.

    Args:
        view: `(B, …)`.
        masks: `(N, …)`, as they broadcast with the inputs.
        fill: as `filling` returns it.
    """
    inputs, kept = view[some, None], masks[None, few].to(view)
    if isinstance(fill, Tensor):
        # What all inputs or all masks share has an axis of 1.
        fill = fill[some if len(fill) > 1 else slice(None), few if fill.shape[1] > 1 else slice(None)]
        return torch.lerp(fill.to(inputs), inputs, kept).flatten(0, 1)
    rows = inputs * kept
    if fill:
        rows += fill * (1 - kept)
    return rows.flatten(0, 1)


def _broadcast(one: Tensor, other: Tensor) -> torch.Size | None:
    try:
        return torch.broadcast_shapes(one.shape, other.shape)
    except RuntimeError:
        return None
