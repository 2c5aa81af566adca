"""Masks as files and run lengths: which class a pixel belongs to, or that nobody wrote it down."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .annotated import IGNORE
from .files import Unavailable, sound


def numbers(path: Path) -> Tensor:
    """Read the class numbers of a mask, uint8 `(H, W)`: grey values, palette indices, or else VOC's colours.

    Raises:
        Unavailable: a damaged file, or one whose pixels are neither class numbers nor VOC's colours.
    """
    with sound(path), Image.open(path) as picture:
        values = np.asarray(picture)
        if picture.mode == "P":
            palette, used = np.reshape(picture.getpalette(), (-1, 3)), np.unique(values)
            shown = palette[used]
            # An index is a class number where the palette is VOC's or a ramp of greys, not where it was made to fit.
            if not ((shown == colours()[used]).all() or (shown == used[:, None]).all()):
                values = _by_colour(palette[values], path)
        elif picture.mode in ("RGB", "RGBA"):
            values = _by_colour(values[..., :3], path)
        elif picture.mode not in ("L", "I;16", "I"):
            raise Unavailable(f"{path} has pixels of mode {picture.mode}, neither class numbers nor VOC's colours")
    if values.max() > IGNORE:
        raise Unavailable(f"{path} holds {values.max()}, which is the number of no class")
    return torch.as_tensor(values.astype(np.uint8))


@cache
def colours() -> np.ndarray:
    """Return the colour that VOC's development kit gives to each number, uint8 `(256, 3)`.

    >>> colours()[[0, 15, 255]].tolist()
    [[0, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    number, channel = np.arange(256)[:, None], np.arange(3)
    return sum((number >> (3 * place + channel) & 1) << (7 - place) for place in range(3)).astype(np.uint8)


def _by_colour(shown: np.ndarray, path: Path) -> np.ndarray:
    known = {tuple(colours()[number].tolist()): number for number in (*range(21), IGNORE)}
    found, place = np.unique(shown.reshape(-1, 3), axis=0, return_inverse=True)
    strange = [colour for colour in map(tuple, found.tolist()) if colour not in known]
    if strange:
        raise Unavailable(f"{path} holds the colour {strange[0]}, which is none of VOC's")
    return np.array([known[colour] for colour in map(tuple, found.tolist())])[place].reshape(shown.shape[:2])


def decode(runs: dict) -> np.ndarray:
    """Decode COCO's run lengths, a list or a compressed string, to bool `(H, W)`; they run down the columns.

    >>> decode({"size": [2, 2], "counts": [1, 2, 1]}).tolist()
    [[False, True], [True, False]]
    """
    lengths = runs["counts"]
    if not isinstance(lengths, list):
        lengths = _lengths(lengths if isinstance(lengths, str) else lengths.decode())
    pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)  # ground first
    return pixels.reshape(runs["size"], order="F")


def _lengths(text: str) -> list[int]:
    """Read pycocotools' string: digits of five bits, the lowest first, of each length less the one before the last."""
    lengths, value, place = [], 0, 0
    for digit in (ord(letter) - 48 for letter in text):
        value |= (digit & 31) << place
        place += 5
        if digit & 32:  # more of this number follows
            continue
        value -= (digit & 16) << (place - 4)  # the last digit's highest bit is the sign
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = place = 0
    return lengths
