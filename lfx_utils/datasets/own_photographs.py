"""Photographs of a reader's own, and those that come with scikit-image, as an encoder takes them."""

from os import PathLike

import skimage
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .annotated import square
from .files import Unavailable
from .photographs import CLASS_NAMES, FUNCTIONS
from .pictures import as_tensor, colours

LEAST = 16  # pixels


def photograph(source: str | PathLike | Image.Image, size: int = 224) -> Tensor:
    """Read one photograph: turned as its camera noted, in colours, the short side brought to `size`, the centre kept.

    Grey pictures get three equal channels, 16 bits are scaled to [0, 1], what is transparent lies on white.

    Args:
        source: a file, or a picture of Pillow's.
        size: side of the square in pixels.

    Returns:
        float32 `(3, size, size)` in [0, 1]; `torch.stack` makes a batch of several.

    Raises:
        ValueError: no picture, one of fewer than 16 pixels a side, or one whose white nobody knows (32 bits).
        FileNotFoundError: no such file.
    """
    try:
        picture = source if isinstance(source, Image.Image) else Image.open(source)
        picture = ImageOps.exif_transpose(picture)
    except (UnidentifiedImageError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"source must be a picture that Pillow can read; {source} is none ({error}).") from error
    if min(picture.size) < LEAST:
        raise ValueError(f"source must have at least {LEAST} pixels a side, got {picture.width} × {picture.height}.")
    try:
        picture = colours(picture)
    except Unavailable as error:
        raise ValueError(f"source must have 8 or 16 bits a channel: {error}.") from error
    return square(as_tensor(picture), None, size)[0]


def from_skimage(size: int = 224) -> tuple[Tensor, tuple[str, ...]]:
    """Return scikit-image's eight photographs, `(8, 3, size, size)` in [0, 1], and their names."""
    found = (getattr(skimage.data, function)() for function in FUNCTIONS)
    found = (picture[0] if isinstance(picture, tuple) else picture for picture in found)  # a stereo pair's left one
    return torch.stack([photograph(Image.fromarray(picture), size) for picture in found]), CLASS_NAMES
