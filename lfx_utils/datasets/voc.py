"""PASCAL VOC with boxes and masks, from the official folders or from a packed part of them in the data root."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import VOCDetection
from torchvision.transforms.functional import pil_to_tensor

from .annotated import Annotated, sound, square, square_boxes
from .base import Unavailable, data_root, draw

STAND_IN = "scenes"
CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
PARTS = {"train": "trainval", "test": "test"}
PACKS = {2007: "voc2007", 2012: "voc2012_animals"}


@dataclass(frozen=True)
class Entry:
    """One image before it is read: its file, its mask's reader (None: no mask), its size and its objects."""

    path: Path
    mask: Callable[[], Tensor] | None
    height: int
    width: int
    boxes: Tensor  # float32 (K, 4), ends exclusive
    classes: Tensor  # int64 (K,)


def load(split="test", count=None, seed=0, size=64, root=None, with_masks=True, download=False, year=2007) -> Annotated:
    """Load images of PASCAL VOC, their central squares with boxes and masks.

    Looked for in this order: torchvision's `VOCdevkit/VOC<year>` in `<root>/voc` or `<root>`, the packed parts
    `<root>/voc2007` or `<root>/voc2012_animals`, a download. Masks are those of `SegmentationClass`; an image
    without one has a mask full of `IGNORE`. Objects marked as difficult count as the others do. An image of which the
    central square shows no object is left out.

    Args:
        split: `"train"` for trainval, `"test"` (for 2012 there is none in public).
        count: how many, None for all.
        seed: of the draw.
        size: side of the squares in pixels.
        root: the data root, see `data_root`.
        with_masks: only images that have a mask.
        download: let torchvision fetch what is missing.
        year: 2007 or 2012.

    Raises:
        ValueError: another split or year, or more images than there are.
        Unavailable: the files are missing or not sound, or the download failed.

    Source: Everingham et al. (2010), The PASCAL visual object classes (VOC) challenge.
    """
    if split not in PARTS or year not in PACKS:
        raise ValueError(f"split must be 'train' or 'test' and year 2007 or 2012, got {split!r} and {year!r}.")
    home, part = data_root(root), PARTS[split]
    pack = home / PACKS[year]
    with sound(f"VOC {year} in {home}"):
        official = _official(home, year, part)
        if official is None and not pack.is_dir() and download:
            VOCDetection(
                home / "voc", year=str(year), image_set=part, download=True
            )  # the masks are in the same archive
            official = _official(home, year, part)
        if official is None and not pack.is_dir():
            raise Unavailable(f"there is neither {part} of VOCdevkit/VOC{year} nor {PACKS[year]} in {home}")
        entries = _read_official(official, part) if official else _read_pack(pack, part)
        if not entries:
            raise Unavailable(f"{official or pack} has no image of {part}")
    source = f"{part}, {'the official files' if official else 'a packed part of it'}"
    return assemble(f"voc{year}", entries, with_masks, count, seed, size, CLASS_NAMES, source)


def assemble(name, entries, with_masks, count, seed, size, class_names, source) -> Annotated:
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
    """
    cut = [square_boxes(entry.boxes, entry.height, entry.width, size) for entry in entries]
    kept = [index for index, entry in enumerate(entries) if len(cut[index][0]) and (entry.mask or not with_masks)]
    rows = [kept[row] for row in draw(name, "count", count, len(kept), seed).tolist()]
    with sound(name):
        images, masks = zip(*(_read(entries[row], size) for row in rows))
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


def _read(entry: Entry, size: int) -> tuple[Tensor, Tensor]:
    with Image.open(entry.path) as picture:
        image = pil_to_tensor(picture.convert("RGB"))
    return square(image, entry.mask() if entry.mask else None, size)


def palette(path: Path) -> Tensor:
    """Read the class numbers of a palette or grey PNG, uint8 `(H, W)`."""
    with Image.open(path) as picture:
        return pil_to_tensor(picture)[0]


def _official(home: Path, year: int, part: str) -> Path | None:
    folders = (base / "VOCdevkit" / f"VOC{year}" for base in (home / "voc", home))
    return next((folder for folder in folders if (folder / "ImageSets" / "Main" / f"{part}.txt").is_file()), None)


def _read_official(folder: Path, part: str) -> list[Entry]:
    entries = []
    for name in (folder / "ImageSets" / "Main" / f"{part}.txt").read_text().split():
        notes = ElementTree.parse(folder / "Annotations" / f"{name}.xml").getroot()
        height, width = (int(notes.findtext(f"size/{side}")) for side in ("height", "width"))
        edges = [[float(thing.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")]
                 for thing in notes.iter("object")]  # fmt: skip
        # VOC counts pixels from 1 and includes the last.
        boxes = torch.tensor(edges).reshape(-1, 4) - torch.tensor([1.0, 1, 0, 0])
        classes = torch.tensor([CLASS_NAMES.index(thing.findtext("name")) for thing in notes.iter("object")])
        mask = folder / "SegmentationClass" / f"{name}.png"
        read = partial(palette, mask) if mask.is_file() else None
        entries.append(Entry(folder / "JPEGImages" / f"{name}.jpg", read, height, width, boxes, classes.long()))
    return entries


def _read_pack(folder: Path, part: str) -> list[Entry]:
    notes = json.loads((folder / "boxes.json").read_text())
    entries = []
    for name in json.loads((folder / "splits.json").read_text()).get(part, ()):
        note = notes[name]
        boxes = torch.tensor([thing["bbox"] for thing in note["objects"]]).reshape(-1, 4)
        classes = torch.tensor([CLASS_NAMES.index(thing["name"]) for thing in note["objects"]])
        mask = partial(palette, folder / "masks" / f"{name}.png") if note.get("mask") else None
        path = folder / "images" / f"{name}.jpg"
        entries.append(Entry(path, mask, note["height"], note["width"], boxes, classes.long()))
    return entries
