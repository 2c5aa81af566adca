"""COCO with boxes and masks, from the official files or from a packed part of them in the data root."""

import json
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .annotated import Annotated, sound
from .base import Unavailable, data_root
from .voc import Entry, assemble, palette

STAND_IN = "scenes"
PARTS = {"train": "train2017", "test": "val2017"}


def load(split="test", count=None, seed=0, size=64, root=None, with_masks=True, download=False) -> Annotated:
    """Load images of COCO, their central squares with boxes and masks.

    Looked for in this order: `annotations/instances_val2017.json` with the folder `val2017` (or `train2017`) in
    `<root>/coco`, then a packed part of train2017 there, which serves for both splits and says so in its provenance.
    Nothing is downloaded: COCO's images are gigabytes. Crowds are in the masks, and have no box.

    Args:
        split: `"train"` for train2017, `"test"` for val2017.
        count: how many, None for all.
        seed: of the draw.
        size: side of the squares in pixels.
        root: the data root, see `data_root`.
        with_masks: not used, every image has a mask.
        download: not used.

    Raises:
        ValueError: another split, or more images than there are.
        Unavailable: the files are missing or not sound.

    Source: Lin et al. (2014), Microsoft COCO.
    """
    if split not in PARTS:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
    folder = data_root(root) / "coco"
    listing = folder / "annotations" / f"instances_{PARTS[split]}.json"
    with sound(f"COCO in {folder}"):
        if listing.is_file():
            (entries, names), source = _read_official(listing, folder / PARTS[split]), f"{PARTS[split]}, official files"
        elif (folder / "boxes.json").is_file():
            (entries, names), source = _read_pack(folder), "a packed part of train2017"
        else:
            raise Unavailable(f"there is neither {listing} nor a packed part of COCO in {folder}")
    return assemble("coco", entries, True, count, seed, size, names, source)


def _read_official(listing: Path, folder: Path) -> tuple[list[Entry], tuple[str, ...]]:
    notes = json.loads(listing.read_text())
    place = {kind["id"]: index for index, kind in enumerate(notes["categories"])}
    things = defaultdict(list)
    for thing in notes["annotations"]:
        things[thing["image_id"]].append(thing)
    entries = []
    for picture in notes["images"]:
        height, width, found = picture["height"], picture["width"], things[picture["id"]]
        single = [thing for thing in found if not thing["iscrowd"]]
        boxes = torch.tensor([thing["bbox"] for thing in single]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        classes = torch.tensor([place[thing["category_id"]] for thing in single]).long()
        mask = partial(_drawn, found, place, height, width)
        entries.append(Entry(folder / picture["file_name"], mask, height, width, boxes, classes))
    return entries, tuple(kind["name"] for kind in notes["categories"])


def _read_pack(folder: Path) -> tuple[list[Entry], tuple[str, ...]]:
    splits = json.loads((folder / "splits.json").read_text())
    place = {int(number): index for index, number in enumerate(splits["categories"])}
    number_to_class = torch.zeros(256, dtype=torch.uint8)
    for number, index in place.items():
        number_to_class[number] = index + 1
    entries = []
    for name, note in json.loads((folder / "boxes.json").read_text()).items():
        single = [thing for thing in note["objects"] if not thing["iscrowd"]]
        boxes = torch.tensor([thing["bbox"] for thing in single]).reshape(-1, 4)
        classes = torch.tensor([place[thing["category_id"]] for thing in single]).long()
        mask = partial(_renumbered, folder / "masks" / f"{name}_class.png", number_to_class)
        path = folder / "images" / f"{name}.jpg"
        entries.append(Entry(path, mask, note["height"], note["width"], boxes, classes))
    return entries, tuple(splits["categories"].values())


def _renumbered(path: Path, number_to_class: Tensor) -> Tensor:
    return number_to_class[palette(path).long()]


def _drawn(things: list[dict], place: dict[int, int], height: int, width: int) -> Tensor:
    """Draw the objects of one image, the larger ones first, uint8 `(H, W)`."""
    canvas = Image.new("L", (width, height))
    for thing in sorted(things, key=lambda thing: -thing["area"]):
        colour = place[thing["category_id"]] + 1
        if isinstance(thing["segmentation"], dict):
            canvas.paste(colour, mask=Image.fromarray(decode(thing["segmentation"]).astype(np.uint8) * 255))
        else:
            for polygon in thing["segmentation"]:
                ImageDraw.Draw(canvas).polygon(polygon, fill=colour)
    return torch.as_tensor(np.asarray(canvas).copy())


def decode(runs: dict) -> np.ndarray:
    """Decode COCO's run lengths, as crowds have them, to bool `(H, W)`; they run down the columns, ground first.

    >>> decode({"size": [2, 2], "counts": [1, 2, 1]}).tolist()
    [[False, True], [True, False]]
    """
    lengths = runs["counts"]
    if not isinstance(lengths, list):
        raise ValueError("compressed run lengths (a string) do not occur in the official files and are not read.")
    pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return pixels.reshape(runs["size"], order="F")
