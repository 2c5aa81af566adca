"""PASCAL VOC with boxes and masks, from the official folders or from a packed part of them in the data root."""

import json
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor

from .annotated import IGNORE, Annotated
from .files import Unavailable, data_root, first_sound, sound
from .masks import numbers
from .pictures import Entry, assemble

STAND_IN = "scenes"
CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
PARTS = {"train": "trainval", "test": "test"}
PACKS = {2007: "voc2007", 2012: "voc2012_animals"}


def load(split="test", count=None, seed=0, size=64, root=None, with_masks=True, download=False, year=2007) -> Annotated:
    """Load images of PASCAL VOC, their central squares with boxes and masks.

    Looked for in this order, and the first sound one serves: torchvision's `VOCdevkit/VOC<year>` in `<root>/voc` or
    `<root>`, the packed parts `<root>/voc2007` or `<root>/voc2012_animals`, a download. Masks are those of
    `SegmentationClass`; an image without one has a mask full of `IGNORE`. Objects marked as difficult count as the
    others do. An image of which the central square shows no object is left out.

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
        Unavailable: the files are missing or not sound, an annotation and its picture contradict each other, no image
            fits what is asked for, or the download failed.

    Source: Everingham et al. (2010), The PASCAL visual object classes (VOC) challenge.
    """
    if split not in PARTS or year not in PACKS:
        raise ValueError(f"split must be 'train' or 'test' and year 2007 or 2012, got {split!r} and {year!r}.")
    home, part = data_root(root), PARTS[split]

    def read(entries, source: str, place: Path) -> Annotated:
        with sound(f"VOC {year} in {place}"):
            found = entries(place, part)
        if not found:
            raise Unavailable(f"{place} has no image of {part}")
        return assemble(f"voc{year}", found, with_masks, count, seed, size, CLASS_NAMES, f"{part}, {source}")

    official = partial(read, _read_official, "the official files")
    places = [(base / "VOCdevkit" / f"VOC{year}" / _listing(part), official) for base in (home / "voc", home)]
    packed = home / PACKS[year] / "boxes.json", partial(read, _read_pack, "a packed part of it")
    missing = f"there is neither {part} of VOCdevkit/VOC{year} nor {PACKS[year]} in {home}"
    try:
        return first_sound([*places, packed], missing)
    except Unavailable:
        if not download:
            raise
    from torchvision.datasets import VOCDetection  # slow to import, and needed here alone

    with sound(f"VOC {year}", "could not be downloaded"):
        VOCDetection(home / "voc", year=str(year), image_set=part, download=True)  # its archive has the masks, too
    return first_sound(places, missing)


def _listing(part: str) -> Path:
    return Path("ImageSets", "Main", f"{part}.txt")


def _read_official(listing: Path, part: str) -> list[Entry]:
    folder = listing.parents[2]
    entries = []
    for name in listing.read_text(encoding="utf-8").split():
        notes = ElementTree.parse(folder / "Annotations" / f"{name}.xml").getroot()
        path, things = folder / "JPEGImages" / f"{name}.jpg", list(notes.iter("object"))
        height, width = (int(_text(notes, f"size/{side}", path)) for side in ("height", "width"))
        edges = [[float(_text(thing, f"bndbox/{edge}", path)) for edge in ("xmin", "ymin", "xmax", "ymax")]
                 for thing in things]  # fmt: skip
        # VOC counts pixels from 1 and includes the last.
        boxes = torch.tensor(edges).reshape(-1, 4) - torch.tensor([1.0, 1, 0, 0])
        classes = _classes([_text(thing, "name", path) for thing in things], path)
        mask = folder / "SegmentationClass" / f"{name}.png"
        entries.append(
            Entry(path, partial(_mask, mask, classes) if mask.is_file() else None, height, width, boxes, classes)
        )
    return entries


def _text(notes: ElementTree.Element, tag: str, path: Path) -> str:
    found = notes.findtext(tag)
    if not found:
        raise Unavailable(f"the annotation of {path} has no {tag}")
    return found.strip()


def _read_pack(listing: Path, part: str) -> list[Entry]:
    folder = listing.parent
    notes = json.loads(listing.read_text(encoding="utf-8"))
    entries = []
    for name in json.loads((folder / "splits.json").read_text(encoding="utf-8")).get(part, ()):
        note, path = notes[name], folder / "images" / f"{name}.jpg"
        boxes = torch.tensor([thing["bbox"] for thing in note["objects"]], dtype=torch.float32).reshape(-1, 4)
        classes = _classes([thing["name"] for thing in note["objects"]], path)
        mask = partial(_mask, folder / "masks" / f"{name}.png", classes) if note.get("mask") else None
        entries.append(Entry(path, mask, note["height"], note["width"], boxes, classes))
    return entries


def _classes(names: list[str], path: Path) -> Tensor:
    for name in names:
        if name not in CLASS_NAMES:
            raise Unavailable(f"the annotation of {path} names the class {name!r}, which is none of VOC's twenty")
    return torch.tensor([CLASS_NAMES.index(name) for name in names], dtype=torch.int64)


def _mask(path: Path, classes: Tensor) -> Tensor:
    """Read a mask; one that shows none of the boxes' classes does not number them as VOC does."""
    mask = numbers(path)
    shown = mask.unique()
    if not torch.isin(shown, classes + 1).any():
        held = [number for number in shown.tolist() if number not in (0, IGNORE)]
        raise Unavailable(f"{path} shows none of the annotated objects ({held or 'no class'} in place of "
                          f"{(classes + 1).unique().tolist()})")  # fmt: skip
    return mask
