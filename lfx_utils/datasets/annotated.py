"""Images with ground truth: where the objects are (masks, boxes) and what they are (labels)."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255  # of a mask: an object's border, or a pixel whose class nobody wrote down


@dataclass(frozen=True, eq=False)
class Annotated:
    """A batch of images of one size, held in memory, with masks, boxes and labels.

    Args:
        name: what it is (`"scenes"` where scenes stand in for VOC or COCO).
        images: float32 `(N, 3, H, W)` in [0, 1].
        masks: int64 `(N, H, W)`: 0 ground, class + 1 on an object, `IGNORE` where it is not known.
        boxes: one float32 tensor `(K, 4)` an image, a row (x0, y0, x1, y1) an object, in pixels, the ends exclusive.
        box_classes: one int64 tensor `(K,)` an image, the classes of its boxes.
        labels: bool `(N, C)`, which classes occur in the image.
        class_names: C names.
        provenance: one sentence: which files or which generator and, for a stand-in, what it stands in for and why.
    """

    name: str
    images: Tensor = field(repr=False)
    masks: Tensor = field(repr=False)
    boxes: tuple[Tensor, ...] = field(repr=False)
    box_classes: tuple[Tensor, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    class_names: tuple[str, ...]
    provenance: str

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def subset(self, indices) -> "Annotated":
        """Return the images of these indices (integers, a slice, or a bool tensor `(N,)`), in that order."""
        rows = torch.arange(len(self))[indices].reshape(-1)
        kept = {name: getattr(self, name)[rows] for name in ("images", "masks", "labels")}
        listed = {name: tuple(getattr(self, name)[row] for row in rows.tolist()) for name in ("boxes", "box_classes")}
        return replace(self, **kept, **listed)

    def resized(self, size: int) -> "Annotated":
        """Return the same images at another size, so that encoders of several sizes explain the same ones.

        Images are averaged where they shrink, masks take their nearest pixels, boxes keep their places.
        """
        scale = size / self.images.shape[-1]
        images = F.interpolate(self.images, (size, size), mode="bilinear", antialias=True, align_corners=False)
        masks = F.interpolate(self.masks[:, None].double(), (size, size), mode="nearest-exact")[:, 0].long()
        return replace(self, images=images.clamp(0, 1), masks=masks, boxes=tuple(each * scale for each in self.boxes))

    def foreground(self) -> Tensor:
        """Return bool `(N, H, W)`: the pixels that are known to lie on an object."""
        return (self.masks > 0) & (self.masks != IGNORE)

    def inside(self) -> Tensor:
        """Return bool `(N, H, W)`: the pixels whose centre lies in a box."""
        height, width = self.images.shape[-2:]
        y, x = torch.arange(height)[:, None, None] + 0.5, torch.arange(width)[:, None] + 0.5
        return torch.stack([
            ((x > box[:, 0]) & (x < box[:, 2]) & (y > box[:, 1]) & (y < box[:, 3])).any(-1) for box in self.boxes
        ])  # fmt: skip


def square(image: Tensor, mask: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """Bring an image's short side to `size` and cut out the central square; the mask by its nearest pixels.

    Args:
        image: uint8 `(3, H, W)`.
        mask: uint8 `(H', W')` of the whole image, at any resolution, or None: then the result is all `IGNORE`.
        size: of the square.

    Returns:
        float32 `(3, size, size)` in [0, 1] and int64 `(size, size)`.
    """
    height, width = image.shape[-2:]
    top, left, tall, wide = _window(height, width, size)
    picture = F.interpolate(image[None].float(), (tall, wide), mode="bilinear", antialias=True, align_corners=False)
    picture = picture[0, :, top : top + size, left : left + size].div(255).clamp(0, 1)
    if mask is None:
        return picture, torch.full((size, size), IGNORE)
    mask = F.interpolate(mask[None, None].float(), (tall, wide), mode="nearest-exact")[0, 0].long()
    return picture, mask[top : top + size, left : left + size]


def square_boxes(boxes: Tensor, height: int, width: int, size: int) -> tuple[Tensor, Tensor]:
    """Move boxes `(K, 4)` of an H × W image to the square that `square` cuts out.

    Returns:
        boxes `(K', 4)` cut at the border, and bool `(K,)`: which are left, at least one pixel wide and tall.

    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [40, 10, 60, 20]])
    >>> square_boxes(boxes, height=50, width=100, size=50)[0].tolist()
    [[15.0, 10.0, 35.0, 20.0]]
    """
    top, left, tall, wide = _window(height, width, size)
    scale = torch.tensor([wide / width, tall / height]).repeat(2)
    moved = (boxes * scale - torch.tensor([left, top, left, top])).clamp(0, size)
    left_over = (moved[:, 2:] - moved[:, :2] >= 1).all(1)
    return moved[left_over], left_over


def _window(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Return the square's top and left corner in the scaled image, and that image's height and width."""
    short = min(height, width)
    tall, wide = round(height * size / short), round(width * size / short)
    return (tall - size) // 2, (wide - size) // 2, tall, wide
