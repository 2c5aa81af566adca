"""COCO with boxes and masks, from the official files or from a packed part of them in the data root."""

import json
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .annotated import IGNORE, Annotated
from .files import data_root, first_sound, sound
from .masks import decode, numbers
from .pictures import Entry, assemble

STAND_IN = "scenes"
PARTS = {"train": "train2017", "test": "val2017"}


def load(split="test", count=None, seed=0, size=64, root=None, with_masks=True, download=False) -> Annotated:
    """Load images of COCO, their central squares with boxes and masks.

    Looked for in this order: `annotations/instances_val2017.json` with the folder `val2017` (or `train2017`) in
    `<root>/coco`, then a packed part of train2017 there, which serves for both splits and says so in its provenance.
    The first sound one serves. Nothing is downloaded: COCO's images are gigabytes. Crowds are in the masks, and have
    no box. An image with an object that has no outline has no mask.

    Args:
        split: `"train"` for train2017, `"test"` for val2017.
        count: how many, None for all.
        seed: of the draw.
        size: side of the squares in pixels.
        root: the data root, see `data_root`.
        with_masks: only images that have a mask.
        download: not used.

    Raises:
        ValueError: another split, or more images than there are.
        Unavailable: the files are missing or not sound, an annotation and its picture contradict each other, or no
            image fits what is asked for.

    Source: Lin et al. (2014), Microsoft COCO.
    """
    if split not in PARTS:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
    folder = data_root(root) / "coco"
    listing = folder / "annotations" / f"instances_{PARTS[split]}.json"

    def read(entries, source: str, place: Path) -> Annotated:
        with sound(f"COCO in {place}"):
            found, names = entries(place)
        return assemble("coco", found, with_masks, count, seed, size, names, source)

    return first_sound(
        [
            (listing, partial(read, _read_official, f"{PARTS[split]}, official files")),
            (folder / "boxes.json", partial(read, _read_pack, "a packed part of train2017")),
        ],
        f"there is neither {listing} nor a packed part of COCO in {folder}",
    )


def _read_official(listing: Path) -> tuple[list[Entry], tuple[str, ...]]:
    folder = listing.parents[1] / listing.stem.removeprefix("instances_")
    notes = json.loads(listing.read_text(encoding="utf-8"))
    place = {kind["id"]: index for index, kind in enumerate(notes["categories"])}
    things = defaultdict(list)
    for thing in notes["annotations"]:
        things[thing["image_id"]].append(thing)
    entries = []
    for picture in notes["images"]:
        height, width, found = picture["height"], picture["width"], things[picture["id"]]
        boxes, classes = _single(found, place)
        boxes[:, 2:] += boxes[:, :2]
        outlined = all(thing.get("segmentation") for thing in found)
        mask = partial(_drawn, found, place, height, width) if outlined else None
        entries.append(Entry(folder / picture["file_name"], mask, height, width, boxes, classes))
    return entries, tuple(kind["name"] for kind in notes["categories"])


def _read_pack(listing: Path) -> tuple[list[Entry], tuple[str, ...]]:
    folder = listing.parent
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    place = {int(number): index for index, number in enumerate(splits["categories"])}
    number_to_class = torch.full((256,), IGNORE - 1, dtype=torch.uint8)  # no class has this number
    number_to_class[0], number_to_class[IGNORE] = 0, IGNORE
    for number, index in place.items():
        number_to_class[number] = index + 1
    entries = []
    for name, note in json.loads(listing.read_text(encoding="utf-8")).items():
        boxes, classes = _single(note["objects"], place)
        mask = partial(_renumbered, folder / "masks" / f"{name}_class.png", number_to_class)
        path = folder / "images" / f"{name}.jpg"
        entries.append(Entry(path, mask, note["height"], note["width"], boxes, classes))
    return entries, tuple(splits["categories"].values())


def _single(things: list[dict], place: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Return the boxes `(K, 4)`, as they are noted, and the classes `(K,)` of all but the crowds."""
    single = [thing for thing in things if not thing.get("iscrowd")]  # many exports leave the note out
    boxes = torch.tensor([thing["bbox"] for thing in single], dtype=torch.float32).reshape(-1, 4)
    return boxes, torch.tensor([place[thing["category_id"]] for thing in single], dtype=torch.int64)


def _renumbered(path: Path, number_to_class: Tensor) -> Tensor:
    return number_to_class[numbers(path).long()]


def _drawn(things: list[dict], place: dict[int, int], height: int, width: int) -> Tensor:
    """Draw the objects of one image, the larger ones first, uint8 `(H, W)`."""
    canvas = Image.new("L", (width, height))
    for thing in sorted(things, key=lambda thing: -_area(thing)):
        colour = place[thing["category_id"]] + 1
        if isinstance(thing["segmentation"], dict):
            canvas.paste(colour, mask=Image.fromarray(decode(thing["segmentation"]).astype(np.uint8) * 255))
        else:
            for polygon in thing["segmentation"]:
                ImageDraw.Draw(canvas).polygon(polygon, fill=colour)
    return torch.as_tensor(np.asarray(canvas).copy())


def _area(thing: dict) -> float:
    return thing["area"] if "area" in thing else thing["bbox"][2] * thing["bbox"][3]
