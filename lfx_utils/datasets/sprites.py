"""Sprites with dSprites' factors, drawn when they are asked for: any of the 737,280 by its index."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from math import pi, prod

import torch
from torch import Tensor

from .base import Dataset, draw

FACTORS = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}  # the last turns fastest
SHAPES = ("square", "ellipse", "heart")
N, SIDE = prod(FACTORS.values()), 64
N_TRAIN = N * 9 // 10
HELD = 18_000, 2_000  # what `None` loads: all of it would fill 12 GB
REACH = 28  # no sprite is wider than this, so that only a window of this side is drawn

# Measured on 64,834 of DeepMind's images; pixels at scale 1, from the sprite's centre. The heart is the curve
# x = 16 sin³ t, y = 13 cos t − 5 cos 2t − 2 cos 3t − cos 4t, in these units and with its zero raised by LIFT.
SQUARE, ELLIPSE = 9.6, (12.76, 7.22)
HEART, HEIGHT, LIFT = 9.595, 0.662, 1.4375


@dataclass(frozen=True, eq=False)
class Sprites(Dataset):
    """A `Dataset` whose labels are the shapes and whose five factors are all known.

    Args:
        train_factors: int64 `(N, 5)`, columns in the order of `FACTORS`.
        test_factors: the same for the test part.
    """

    train_factors: Tensor = field(repr=False)
    test_factors: Tensor = field(repr=False)


def load(train=None, test=None, seed=0, root=None, download=False) -> Sprites:
    """Load generated sprites, 64 × 64 and either 0 or 1; the baseline is a black image.

    Nine tenths of the indices are for training, one tenth for testing, always the same ones (`split`). Orientations 0
    and 39 are 0 and 2π, as in dSprites: the two pictures are the same, and may lie on the two sides of the split.

    Args:
        train: how many training examples (at most 663,552), None for 18,000.
        test: how many test examples (at most 73,728), None for 2,000.
        seed: of the draw.
        root: not used, nothing is read.
        download: not used.

    Returns:
        images `(N, 1, 64, 64)`, labels 0–2 for the shape, and the factors.

    Source: Matthey et al. (2017), dSprites; 90/10 from LF, Section 4.3; baseline from LF, App. C.3.

    >>> load(train=5, test=2).train.shape
    torch.Size([5, 1, 64, 64])
    """
    how = "Sprites generated with dSprites' factors; outlines as measured on DeepMind's images."
    return divide("sprites", split(), render, (train, test), seed, how)


def sizes() -> tuple[int, int]:
    """Return how many training and test sprites there are."""
    return N_TRAIN, N - N_TRAIN


@cache
def split() -> tuple[Tensor, Tensor]:
    """Return the indices of the training part and of the test part, 663,552 and 73,728, each in random order."""
    return torch.randperm(N, generator=torch.Generator().manual_seed(0)).split((N_TRAIN, N - N_TRAIN))


def divide(name: str, parts, images: Callable[[Tensor], Tensor], counts, seed: int, provenance: str) -> Sprites:
    """Draw from both parts and look up only what is drawn.

    Args:
        name: of the data set.
        parts: pair, the indices that the training and the test part hold.
        images: maps indices `(B,)` to images `(B, 1, 64, 64)`.
        counts: pair, how many examples of each (None for `HELD`, or all where that is less).
        seed: of the draw.
        provenance: one sentence.
    """
    columns = {}
    for part, held, count, usual in zip(("train", "test"), parts, counts, HELD, strict=True):
        count = min(usual, len(held)) if count is None else count
        index = held[draw(name, part, count, len(held), seed)]
        columns[part], columns[f"{part}_factors"] = images(index), factors(index)
        columns[f"{part}_labels"] = columns[f"{part}_factors"][:, 0]
    return Sprites(name=name, class_names=SHAPES, baseline=torch.zeros_like, provenance=provenance, **columns)


def factors(index: Tensor, *names: str) -> Tensor:
    """Decode indices into factors, each counted from 0.

    Args:
        index: int64 `(B,)`.
        names: the factors wanted, in that order; all five if none is named.

    Returns:
        int64 `(B, 5)`, or a column for each name.

    Raises:
        ValueError: an unknown factor, or an index outside [0, 737,280).

    >>> factors(torch.tensor([737_279])).tolist()
    [[2, 5, 39, 31, 31]]
    """
    _known(names)
    index = _indices(index)
    columns, rest = {}, index
    for name, levels in reversed(FACTORS.items()):
        columns[name], rest = rest % levels, rest // levels
    return torch.stack([columns[name] for name in names or FACTORS], -1)


def locate(**levels: int | Tensor) -> Tensor:
    """Return the indices of the given factors, 0 where a factor is not named; tensors are broadcast.

    Raises:
        ValueError: an unknown factor, or a level that it does not have.

    >>> locate(shape=2, x=torch.arange(3)).tolist()
    [491520, 491552, 491584]
    """
    _known(levels)
    index = torch.tensor(0)
    for name, count in FACTORS.items():
        level = torch.as_tensor(levels.get(name, 0))
        if level.is_floating_point() or level.min() < 0 or level.max() >= count:
            raise ValueError(f"{name} must hold integers from 0 to {count - 1}, got {levels[name]}.")
        index = index * count + level
    return index


def render(index: Tensor) -> Tensor:
    """Draw the sprites of these indices, on the device where the indices are.

    A pixel is white if its centre lies in the outline. The sprite's centre is at 16 + 32 · position (pixels from the
    image's left or upper border, position in [0, 1]); the orientation turns it counter-clockwise.

    Args:
        index: int64 `(B,)`.

    Returns:
        float32 `(B, 1, 64, 64)`, 0 or 1.

    Raises:
        ValueError: an index outside [0, 737,280).

    >>> int(render(locate(shape=0, scale=5, x=16, y=16)[None]).sum())
    361
    """
    shape, scale, turn, *place = factors(index).unbind(1)
    centre = 15.5 + torch.stack(place, 1).double() * 32 / 31
    first = centre.floor().long() - (REACH // 2 - 1)
    grid = first[..., None] + torch.arange(REACH, device=index.device)  # (B, x and y, window)
    dx, dy = (grid - centre[..., None]).float().unbind(1)
    angle, size = turn.double() * (2 * pi / 39), 0.5 + 0.1 * scale.double()
    cos, sin = ((function(angle) / size).float()[:, None] for function in (torch.cos, torch.sin))
    # The sprite's own axes, at scale 1; the products are small, their sums fill the window.
    u = (cos * dx)[:, None, :] - (sin * dy)[:, :, None]
    v = (sin * dx)[:, None, :] + (cos * dy)[:, :, None]
    inside = torch.empty_like(u, dtype=torch.bool)
    for kind, covers in enumerate((_square, _ellipse, _heart)):
        rows = shape == kind
        inside[rows] = covers(u[rows], v[rows])
    images = torch.zeros(len(index), 1, SIDE, SIDE, device=index.device)
    row = torch.arange(len(index), device=index.device)[:, None, None]
    images[row, 0, grid[:, 1, :, None], grid[:, 0, None, :]] = inside.float()
    return images


def stream(batch_size: int = 4_096) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the whole set in the order of its indices, as pairs of indices `(B,)` and images `(B, 1, 64, 64)`."""
    for index in torch.arange(N).split(batch_size):
        yield index, render(index)


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) <= SQUARE


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    return (u / ELLIPSE[0]).square() + (v / ELLIPSE[1]).square() <= 1


def _heart(u: Tensor, v: Tensor) -> Tensor:
    # Each x = 16 sin³ t belongs to two points, t and π − t: what lies between them is inside. With c = |cos t| their
    # heights are even(c) ± odd(c), where the cosines of multiples of t are written out as powers of c.
    c = (1 - (u.abs() / HEART).pow(2 / 3)).clamp(min=0).sqrt()
    even, odd = 4 - 2 * c**2 - 8 * c**4, c * (19 - 8 * c**2)
    return ((-v - LIFT) / HEIGHT - even).abs() <= odd


def _indices(index: Tensor) -> Tensor:
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.dim() != 1:
        raise ValueError(f"index must be an int64 tensor (B,), got {getattr(index, 'dtype', type(index).__name__)}.")
    if len(index) and not 0 <= index.min() <= index.max() < N:
        raise ValueError(f"index must lie in [0, {N}), got {index.min().item()} to {index.max().item()}.")
    return index


def _known(names) -> None:
    for name in names:
        if name not in FACTORS:
            raise ValueError(f"A factor must be one of {', '.join(FACTORS)}; got {name!r}.")
