"""Scenes drawn when they are asked for: objects of eight shapes on photographs or clouds, with masks and boxes."""

from functools import cache
from math import tau

import skimage
import torch
import torch.nn.functional as F
from torch import Tensor

from .annotated import Annotated
from .shapes import OUTLINES, paint

CLASS_NAMES = tuple(OUTLINES)
GROUNDS = ("mixed", "photographs", "procedural")
# No coins, cups or wheels among them, which would be unlabelled discs and rings.
PHOTOGRAPHS = (
    "astronaut", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "brick", "grass", "gravel",
)  # fmt: skip
BANK = 192  # side of the kept photographs
BLOCK, MOST, LAYOUTS = 64, 3, 12  # images drawn together, objects in a scene, places tried for them
RADII = 0.14, 0.25  # of the circle round an object, as a fraction of the image's side
TOUCH = 0.06  # how far two such circles may overlap in the first layout that is taken


def load(split="test", count=None, seed=0, size=64, root=None, with_masks=True, download=False, **options) -> Annotated:
    """Load scenes as `load_annotated` does; training and test scenes come from different seeds.

    Args:
        split: `"train"` or `"test"`.
        count: how many, None for 500.
        seed: of the generator.
        size: side of the images in pixels.
        root, with_masks, download: not used, nothing is read and every scene has its mask.
        **options: passed on to `generate`.

    Raises:
        ValueError: another split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
    return generate(500 if count is None else count, seed=2 * seed + (split == "test"), size=size, **options)


def generate(count, *, seed=0, size=64, objects=(1, MOST), ground="mixed", shortcut=None) -> Annotated:
    """Draw scenes: up to three textured objects on a ground, with a mask and a box each.

    The class of an object is its shape alone: colours, texture, size, turn and place are drawn alike for all of them,
    colours a little away from the ground's. Nearer objects hide farther ones; an edge covers a pixel in part, and the
    mask is the object whose outline holds the pixel's centre. Scene i of a seed is the same whatever the count, and has
    the same ground whatever the objects; another size draws the same scene coarser or finer.

    Args:
        count: N ≥ 1.
        seed: of the draws, 0 or more.
        size: side of the images in pixels, 16 or more.
        objects: how many in a scene, a number or (fewest, most), from 0 to 3. With 0 the grounds are left, empty.
        ground: `"photographs"` of scikit-image, `"procedural"` clouds, or both `"mixed"`.
        shortcut: a class (name or index): wherever it occurs, and nowhere else, `plant` puts a mark in the corner.

    Returns:
        images `(N, 3, size, size)`, masks, boxes (of what is seen), labels.

    Raises:
        ValueError: an argument outside its range.

    >>> scenes = generate(2, seed=1)
    >>> scenes.images.shape, torch.equal(scenes.images[0], generate(1, seed=1).images[0])
    (torch.Size([2, 3, 64, 64]), True)
    """
    fewest, most = (objects, objects) if isinstance(objects, int) else objects
    for name, value, low in (("count", count, 1), ("seed", seed, 0), ("size", size, 16)):
        if not isinstance(value, int) or value < low:
            raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}.")
    if not 0 <= fewest <= most <= MOST:
        raise ValueError(f"objects must be a number or (fewest, most) from 0 to {MOST}, got {objects!r}.")
    if ground not in GROUNDS:
        raise ValueError(f"ground must be one of {', '.join(GROUNDS)}; got {ground!r}.")
    if shortcut is not None and shortcut not in (*CLASS_NAMES, *range(len(CLASS_NAMES))):
        raise ValueError(f"shortcut must be None, one of {', '.join(CLASS_NAMES)} or its index; got {shortcut!r}.")
    marked = CLASS_NAMES.index(shortcut) if isinstance(shortcut, str) else shortcut
    blocks = [
        _block(seed * 1_000_003 + block, min(BLOCK, count - block * BLOCK), size, fewest, most, ground, marked)
        for block in range(-(-count // BLOCK))
    ]
    images, masks, classes, seen, edges = (torch.cat(column) for column in zip(*blocks))
    labels = (F.one_hot(classes, len(CLASS_NAMES)).bool() & seen[..., None]).any(1)
    how = f"scenes 0–{count - 1} of seed {seed}, {fewest} to {most} objects, ground {ground}"
    return Annotated(
        name="scenes",
        images=images,
        masks=masks,
        boxes=tuple(box[kept] for box, kept in zip(edges, seen)),
        box_classes=tuple(kinds[kept] for kinds, kept in zip(classes, seen)),
        labels=labels,
        class_names=CLASS_NAMES,
        provenance=f"Generated: {how}{'' if marked is None else f', a mark beside each {CLASS_NAMES[marked]}'}.",
    )


def mark(size: int) -> Tensor:
    """Return bool `(size, size)`: the pixels that `plant` paints, a small square near the upper left corner."""
    start, side = size // 32, max(4, size // 10)
    covered = torch.zeros(size, size, dtype=torch.bool)
    covered[start : start + side, start : start + side] = True
    return covered


def plant(images: Tensor) -> Tensor:
    """Paint the shortcut's mark, a square half magenta and half yellow, into a copy of images `(…, 3, S, S)`."""
    covered = mark(images.shape[-1])
    upper = covered & (covered.cumsum(0) <= covered.sum(0).max() // 2)
    colours = torch.tensor([1.0, 0, 1])[:, None, None] * upper + torch.tensor([1.0, 1, 0])[:, None, None] * ~upper
    return torch.where(covered, colours.to(images), images)


def _block(seed, count, size, fewest, most, ground, marked):
    """Draw the block's random numbers, always for all its scenes and objects, and render the first `count` scenes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(BLOCK, *shape, generator=generator)[:count]

    number = fewest + (uniform() * (most - fewest + 1)).long()
    classes = (uniform(MOST) * len(CLASS_NAMES)).long()
    images = _grounds(uniform, size, ground)
    radius = RADII[0] + (RADII[1] - RADII[0]) * uniform(MOST)
    centre = _layout(uniform(LAYOUTS, MOST, 2), radius, number)
    there = torch.arange(MOST) < number[:, None]

    place = (torch.arange(size) + 0.5) / size
    dx = (place - centre[..., :1]) / radius[..., None]
    dy = (place - centre[..., 1:]) / radius[..., None]
    angle = tau * uniform(MOST, 1)
    u = (angle.cos() * dx)[:, :, None, :] + (angle.sin() * dy)[..., None]
    v = (angle.cos() * dy)[..., None] - (angle.sin() * dx)[:, :, None, :]
    distance = torch.empty_like(u)
    for kind, outline in enumerate(OUTLINES.values()):
        rows = classes == kind
        distance[rows] = outline(u[rows], v[rows])
    cover = (0.5 - distance * radius[..., None, None] * size).clamp(0, 1) * there[..., None, None]
    colours = _colours(uniform, images.mean((2, 3)))
    owner = torch.zeros(count, size, size, dtype=torch.long)
    for layer in range(MOST):
        painted = paint(uniform, colours[:, layer], u[:, layer], v[:, layer])
        images = torch.lerp(images, painted, cover[:, layer, None])
        owner = torch.where(cover[:, layer] > 0.5, layer + 1, owner)
    if marked is not None:
        holds = ((classes == marked) & there).any(1)
        images[holds] = plant(images[holds])
        owner[holds] *= ~mark(size)
    seen, edges = _boxes(owner)
    masks = torch.gather(F.pad(classes + 1, (1, 0)), 1, owner.flatten(1)).view_as(owner)
    return images, masks, classes, seen, edges


def _layout(places: Tensor, radius: Tensor, number: Tensor) -> Tensor:
    """Choose the first of several layouts whose objects hardly overlap, or else the one where they overlap least."""
    centres = radius[:, None, :, None] + places * (1 - 2 * radius[:, None, :, None])
    overlap = radius[:, None, :, None] + radius[:, None, None, :] - torch.cdist(centres, centres)
    pairs = torch.ones(MOST, MOST).triu(1).bool() & (torch.arange(MOST) < number[:, None])[:, None, None, :]
    worst = overlap.masked_fill(~pairs, -1).flatten(2).amax(2)
    fits = worst <= TOUCH
    chosen = torch.where(fits.any(1), fits.int().argmax(1), worst.argmin(1))
    return centres[torch.arange(len(centres)), chosen]


def _grounds(uniform, size: int, ground: str) -> Tensor:
    """Give each scene a cloud of two colours or a piece of a photograph, `(N, 3, size, size)`."""
    colours, octaves = uniform(2, 3, 1, 1), [uniform(1, side, side) for side in (3, 5, 9, 17)]
    kind, which, corner, zoom, light, tint = uniform(), uniform(), uniform(2), uniform(), uniform(1), uniform(3)
    cloud = sum(
        F.interpolate(octave - 0.5, size, mode="bicubic", align_corners=True) / 2**power
        for power, octave in enumerate(octaves)
    )
    images = torch.lerp(*colours.unbind(1), (0.5 + 1.5 * cloud).clamp(0, 1))
    if ground == "procedural":
        return images
    photographs = _photographs()
    wanted = torch.ones_like(kind, dtype=torch.bool) if ground == "photographs" else kind < 2 / 3
    which = (which * len(photographs)).long()
    side = 0.3 + 0.7 * zoom  # of the photograph's, in grid_sample's units from -1 to 1
    middle = (1 - side)[:, None] * (2 * corner - 1)
    place = (torch.arange(size) + 0.5) / size * 2 - 1
    x, y = (middle[:, axis, None] + side[:, None] * place for axis in (0, 1))
    for number, photograph in enumerate(photographs):
        rows = wanted & (which == number)
        if rows.any():
            grid = torch.stack(torch.broadcast_tensors(x[rows, None, :], y[rows, :, None]), -1)
            pieces = F.grid_sample(photograph[None], grid.flatten(0, 1)[None], "bilinear", "border", False)[0]
            images[rows] = pieces.unflatten(1, (-1, size)).transpose(0, 1)
    recoloured = images * (0.7 + 0.5 * light + 0.3 * (tint - 0.5))[..., None, None]
    return torch.where(wanted[:, None, None, None], recoloured, images).clamp(0, 1)


@cache
def _photographs() -> tuple[Tensor, ...]:
    """Reduce the central square of each photograph, float32 `(3, BANK, BANK)`."""
    kept = []
    for name in PHOTOGRAPHS:
        picture = torch.as_tensor(getattr(skimage.data, name)()).float() / 255
        picture = picture[..., None].expand(-1, -1, 3) if picture.dim() == 2 else picture
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        piece = picture[top : top + side, left : left + side].permute(2, 0, 1)[None]
        kept.append(F.interpolate(piece, BANK, mode="bilinear", antialias=True, align_corners=False)[0])
    return tuple(kept)


def _colours(uniform, background: Tensor) -> Tensor:
    """Choose two colours an object, of six drawn those farthest from the ground's mean, `(N, MOST, 2, 3)`."""
    drawn = uniform(MOST, 6, 3)
    order = (drawn - background[:, None, None]).norm(dim=-1).argsort(dim=-1, descending=True)[..., :2]
    return torch.gather(drawn, 2, order[..., None].expand(-1, -1, -1, 3))


def _boxes(owner: Tensor) -> tuple[Tensor, Tensor]:
    """Return which objects are seen, bool `(N, MOST)`, and the box of what is seen of each, float32 `(N, MOST, 4)`."""
    size = owner.shape[-1]
    visible = owner[:, None] == torch.arange(1, MOST + 1)[:, None, None]
    columns, rows = visible.any(2).int(), visible.any(3).int()
    first = [axis.argmax(2) for axis in (columns, rows)]
    last = [size - axis.flip(2).argmax(2) for axis in (columns, rows)]
    return visible.flatten(2).any(2), torch.stack(first + last, -1).float()
