"""Pictures as files: drawn from a list, and read in the frame that their boxes and masks were drawn in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .annotated import IGNORE, Annotated, square, square_boxes
from .base import draw
from .files import Unavailable, sound

EXIF_TURN = 0x0112
SLACK = 1.0  # pixels by which a box may stick out: annotations round


@dataclass(frozen=True)
class Entry:
    """One image before it is read: its file, its mask's reader (None: no mask), its size as noted and its objects."""

    path: Path
    mask: Callable[[], Tensor] | None
    height: int
    width: int
    boxes: Tensor  # float32 (K, 4), ends exclusive
    classes: Tensor  # int64 (K,)


def assemble(
    name: str, entries: Sequence[Entry], with_masks: bool, count: int | None, seed: int, size: int,
    class_names: tuple[str, ...], source: str,
) -> Annotated:  # fmt: skip
    """Draw from the entries of which the central square shows an object, and read only what is drawn.

    Args:
        name: of the data set.
        entries: all there are.
        with_masks: only those with a mask.
        count: how many, None for all.
        seed: of the draw.
        size: side of the squares.
        class_names: what the entries' classes count.
        source: for the provenance.

    Raises:
        ValueError: more images than there are.
        Unavailable: no image fits, or an annotation and its picture contradict each other.
    """
    for entry in entries:
        _plausible(entry)
    cut = [square_boxes(entry.boxes, entry.height, entry.width, size) for entry in entries]
    shown = [index for index in range(len(entries)) if len(cut[index][0])]
    if not shown:
        raise Unavailable(f"none of the {len(entries)} images of {source} shows an object in its central square")
    kept = [index for index in shown if entries[index].mask or not with_masks]
    if not kept:
        raise Unavailable(f"no image of {source} has a mask; pass with_masks=False to have them without")
    rows = [kept[row] for row in draw(name, "count", count, len(kept), seed).tolist()]
    images, masks = zip(*(_read(entries[row], size, len(class_names)) for row in rows))
    box_classes = tuple(entries[row].classes[cut[row][1]] for row in rows)
    labels = torch.zeros(len(rows), len(class_names), dtype=torch.bool)
    for row, classes in enumerate(box_classes):
        labels[row, classes] = True
    return Annotated(
        name=name,
        images=torch.stack(images),
        masks=torch.stack(masks),
        boxes=tuple(cut[row][0] for row in rows),
        box_classes=box_classes,
        labels=labels,
        class_names=class_names,
        provenance=f"{name}, {source}: {len(rows)} of {len(kept)}{' with masks' if with_masks else ''}.",
    )


def _plausible(entry: Entry) -> None:
    """Raise unless every box lies in the picture of the noted size; empty ones, as COCO has, are not shown."""
    if min(entry.height, entry.width) < 1:
        raise Unavailable(f"the annotation of {entry.path} notes a size of {entry.width} × {entry.height} pixels")
    low, high = entry.boxes[:, :2], entry.boxes[:, 2:]
    inside = (low >= -SLACK) & (high >= low) & (high <= torch.tensor([entry.width, entry.height]) + SLACK)
    if not inside.all():
        wrong = entry.boxes[~inside.all(1)][0].tolist()
        raise Unavailable(
            f"the annotation of {entry.path} has a box (x0, y0, x1, y1) = {tuple(round(end, 1) for end in wrong)}, "
            f"which does not lie in its {entry.width} × {entry.height} pixels"
        )


def _read(entry: Entry, size: int, classes: int) -> tuple[Tensor, Tensor]:
    with sound(entry.path), Image.open(entry.path) as file:
        image = as_tensor(colours(_as_annotated(file, entry)))
    if entry.mask is None:
        return square(image, None, size)
    with sound(f"the mask of {entry.path}"):
        mask = entry.mask()
    height, width = mask.shape
    if abs(width - height * entry.width / entry.height) > 1:
        raise Unavailable(
            f"the mask of {entry.path} has {width} × {height} pixels, another shape than the noted "
            f"{entry.width} × {entry.height}"
        )
    unknown = mask[(mask > classes) & (mask != IGNORE)]
    if len(unknown):
        raise Unavailable(f"the mask of {entry.path} holds {int(unknown[0])}, which is the number of no class")
    return square(image, mask, size)


def _as_annotated(file: Image.Image, entry: Entry) -> Image.Image:
    """Turn the picture as its EXIF note says, or leave it as it is stored: whichever has the noted size."""
    noted = entry.width, entry.height
    turned = file if file.getexif().get(EXIF_TURN, 1) == 1 else ImageOps.exif_transpose(file)
    if turned is not file and turned.size == file.size:
        raise Unavailable(
            f"{entry.path} is turned by its EXIF note, and its size does not tell whether the boxes were drawn before "
            "or after; save it without the note"
        )
    for picture in (turned, file):
        if picture.size == noted:
            return picture
    raise Unavailable(
        f"{entry.path} has {file.width} × {file.height} pixels, and its annotation notes {noted[0]} × {noted[1]}"
    )


def as_tensor(picture: Image.Image) -> Tensor:
    """Return a picture's uint8 pixels, `(3, H, W)` where it is RGB."""
    from torchvision.transforms.functional import pil_to_tensor  # slow to import, and needed here alone

    return pil_to_tensor(picture)


def colours(picture: Image.Image) -> Image.Image:
    """Turn a picture of any usual mode into RGB: 16 bits are scaled to 8, what is transparent lies on white.

    Raises:
        Unavailable: pixels of 32 bits or floating-point numbers, of which nobody knows what is white.
    """
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) / 257).round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise Unavailable(f"a picture of mode {picture.mode} has no white; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")
