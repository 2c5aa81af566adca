"""Images with ground truth: VOC and COCO in both layouts, their squares, and what happens where they are missing."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageDraw, ImageOps

from lfx_utils.datasets import IGNORE, Annotated, annotated, coco, load_annotated, masks, pictures, voc

REAL = Path(os.environ.get("LFX_DATA", "nowhere"))


@pytest.fixture
def toy():
    masks = torch.zeros(3, 8, 8, dtype=torch.long)
    masks[0, 2:5, 3:7], masks[0, 5, 3:7], masks[2] = 2, IGNORE, IGNORE
    return Annotated(
        name="toy",
        images=torch.rand(3, 3, 8, 8),
        masks=masks,
        boxes=(torch.tensor([[3.0, 2, 7, 6]]), torch.zeros(0, 4), torch.tensor([[0.0, 0, 1, 2], [6.5, 0, 8, 2]])),
        box_classes=(torch.tensor([1]), torch.zeros(0).long(), torch.tensor([0, 1])),
        labels=torch.tensor([[False, True], [False, False], [True, True]]),
        class_names=("cup", "pen"),
        provenance="By hand.",
    )


def test_another_size_shows_the_same_places(toy):
    large = toy.resized(2 * toy.images.shape[-1])
    assert large.images.shape[-1] == large.masks.shape[-1] == 2 * toy.images.shape[-1]
    assert torch.equal(large.inside()[:, ::2, ::2], toy.inside()) and torch.equal(large.masks[:, ::2, ::2], toy.masks)
    back = large.resized(toy.images.shape[-1])
    assert all(torch.equal(one, other) for one, other in zip(back.boxes, toy.boxes, strict=True))
    assert torch.equal(back.labels, toy.labels) and len(back) == len(toy)


def test_subsets(toy):
    part = toy.subset([2, 0])
    assert len(part) == 2 and part.name == "toy"
    assert torch.equal(part.images, toy.images[[2, 0]]) and torch.equal(part.masks, toy.masks[[2, 0]])
    assert part.boxes[0] is toy.boxes[2] and part.box_classes[1] is toy.box_classes[0]
    assert torch.equal(toy.subset(toy.labels[:, 1]).labels, toy.labels[[0, 2]])
    assert len(toy.subset(slice(1))) == len(toy.subset(1)) == 1


def test_foreground_and_inside(toy):
    assert toy.foreground().sum((1, 2)).tolist() == [12, 0, 0]
    expected = torch.zeros(3, 8, 8, dtype=torch.bool)
    expected[0, 2:6, 3:7], expected[2, :2, 0], expected[2, :2, 7] = True, True, True
    expected[2, :2, 6] = False  # its centre is on the edge, not inside
    assert torch.equal(toy.inside(), expected)


@pytest.mark.parametrize(("height", "width"), [(96, 130), (131, 96), (64, 64)])
def test_squares_against_pillow(height, width):
    picture = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    image, mask = annotated.square(torch.tensor(np.array(picture)).permute(2, 0, 1), None, 48)
    short = min(height, width)
    scaled = picture.resize((round(width * 48 / short), round(height * 48 / short)), Image.Resampling.BILINEAR)
    left, top = (scaled.width - 48) // 2, (scaled.height - 48) // 2
    expected = np.array(scaled.crop((left, top, left + 48, top + 48))) / 255
    assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() < 0.02
    assert (mask == IGNORE).all() and mask.shape == (48, 48)


def test_boxes_follow_their_pixels():
    mask = torch.zeros(90, 120, dtype=torch.uint8)
    mask[30:60, 45:90] = 7
    boxes, left_over = annotated.square_boxes(
        torch.tensor([[45.0, 30, 90, 60], [0, 0, 14, 90], [0, 0, 15.5, 90]]), 90, 120, 60
    )
    _, square = annotated.square(torch.zeros(3, 90, 120, dtype=torch.uint8), mask, 60)
    rows, columns = np.nonzero(square.numpy())
    assert boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    assert left_over.tolist() == [True, False, False]  # one out of sight, of one a strip less than a pixel wide
    assert set(square.unique().tolist()) == {0, 7}


# The same three pictures in VOC's and COCO's layouts, official and packed. Numbers 0 and 2 have masks; 1 shows its
# object only outside the central square.

SIZES = ((40, 60), (40, 100), (60, 40))  # heights and widths
OBJECTS = (
    (("dog", (10, 5, 30, 35)), ("cat", (32, 8, 44, 20))),
    (("person", (0, 0, 20, 40)),),
    (("dog", (4, 20, 24, 50)),),
)


def picture(number):
    height, width = SIZES[number]
    image, mask = Image.new("RGB", (width, height), (10, 20, 30)), Image.new("P", (width, height))
    mask.putpalette([level for level in range(256) for _ in range(3)])
    for name, (x0, y0, x1, y1) in OBJECTS[number]:
        colour = voc.CLASS_NAMES.index(name) + 1
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=(200, 10 * colour, 0))
        ImageDraw.Draw(mask).rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour)
    return image, mask


def official_voc(root):
    folder = root / "VOCdevkit" / "VOC2007"
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("000000\n000001\n000002\n", encoding="utf-8")
    for number, ((height, width), things) in enumerate(zip(SIZES, OBJECTS)):
        image, mask = picture(number)
        image.save(folder / "JPEGImages" / f"{number:06}.jpg", quality=100, subsampling=0)
        if number != 1:
            mask.save(folder / "SegmentationClass" / f"{number:06}.png")
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax>"
            f"<ymax>{y1}</ymax></bndbox><part><name>head</name></part></object>"
            for name, (x0, y0, x1, y1) in things
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        (folder / "Annotations" / f"{number:06}.xml").write_text(
            f"<annotation>{size}{objects}</annotation>", encoding="utf-8"
        )


def packed_voc(root):
    folder = root / "voc2007"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    notes = {}
    for number, ((height, width), things) in enumerate(zip(SIZES, OBJECTS)):
        image, mask = picture(number)
        image.save(folder / "images" / f"{number:06}.jpg", quality=100, subsampling=0)
        notes[f"{number:06}"] = {"height": height, "width": width, "objects": [
            {"name": name, "bbox": list(box), "difficult": 0} for name, box in things
        ]}  # fmt: skip
        if number != 1:
            mask.save(folder / "masks" / f"{number:06}.png")
            notes[f"{number:06}"]["mask"] = True
    (folder / "boxes.json").write_text(json.dumps(notes), encoding="utf-8")
    (folder / "splits.json").write_text(json.dumps({"test": list(notes), "trainval": []}), encoding="utf-8")


NUMBERS = {"person": 1, "cat": 17, "dog": 18}  # COCO's, with gaps


def official_coco(root):
    folder = root / "coco"
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").mkdir()
    images, things = [], []
    for number, (height, width) in enumerate(SIZES):
        picture(number)[0].save(folder / "val2017" / f"{number}.jpg", quality=100, subsampling=0)
        images.append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
        for name, (x0, y0, x1, y1) in OBJECTS[number]:
            corners = [x0, y0, x1 - 1, y0, x1 - 1, y1 - 1, x0, y1 - 1]
            things.append({"image_id": number, "category_id": NUMBERS[name], "bbox": [x0, y0, x1 - x0, y1 - y0],
                           "area": (x1 - x0) * (y1 - y0), "iscrowd": 0, "segmentation": [corners]})  # fmt: skip
    crowd = np.zeros((60, 40), int)
    crowd[:10] = 1  # above the dog of the last picture
    edges = np.flatnonzero(np.diff(crowd.flatten("F"), prepend=0, append=0))
    runs = np.diff(np.concatenate([[0], edges, [crowd.size]])).tolist()
    things.append({"image_id": 2, "category_id": 1, "bbox": [0, 0, 40, 10], "area": 400, "iscrowd": 1,
                   "segmentation": {"size": [60, 40], "counts": runs}})  # fmt: skip
    categories = [{"id": number, "name": name} for name, number in NUMBERS.items()]
    listing = {"images": images, "annotations": things, "categories": categories}
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(listing), encoding="utf-8")


def packed_coco(root):
    folder = root / "coco"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    notes = {}
    for number, ((height, width), things) in enumerate(zip(SIZES, OBJECTS)):
        image, mask = picture(number)
        image.save(folder / "images" / f"{number}.jpg", quality=100, subsampling=0)
        mask = np.array(mask)
        for name, place in NUMBERS.items():
            mask[mask == voc.CLASS_NAMES.index(name) + 1] = place
        if number == 2:
            mask[:10] = 1
        Image.fromarray(mask).save(folder / "masks" / f"{number}_class.png")
        notes[number] = {"height": height, "width": width, "objects": [
            {"category_id": NUMBERS[name], "bbox": list(box), "iscrowd": 0} for name, box in things
        ]}  # fmt: skip
    notes[2]["objects"].append({"category_id": 1, "bbox": [0, 0, 40, 10], "iscrowd": 1})
    (folder / "boxes.json").write_text(json.dumps(notes), encoding="utf-8")
    names = {str(number): name for name, number in NUMBERS.items()}
    (folder / "splits.json").write_text(json.dumps({"train2017": list(notes), "categories": names}), encoding="utf-8")


@pytest.mark.parametrize("layout", [official_voc, packed_voc, official_coco, packed_coco])
def test_layouts(layout, tmp_path):
    layout(tmp_path)
    name = layout.__name__.split("_")[1]
    part = load_annotated(name, size=20, root=tmp_path)
    assert len(part) == 2 and part.images.shape == (2, 3, 20, 20)
    assert part.name == {"voc": "voc2007", "coco": "coco"}[name]
    class_of = [part.class_names.index(kind) for kind in ("dog", "cat")]
    # The first picture is halved and loses 5 columns on either side, the other 5 rows.
    assert part.boxes[0].tolist() == [[0.0, 2.5, 10.0, 17.5], [11.0, 4.0, 17.0, 10.0]]
    assert part.boxes[1].tolist() == [[2.0, 5.0, 12.0, 20.0]]
    assert [kinds.tolist() for kinds in part.box_classes] == [class_of, class_of[:1]]
    assert [row.nonzero().flatten().tolist() for row in part.labels] == [sorted(class_of), class_of[:1]]
    dog = part.masks[0] == class_of[0] + 1
    assert dog[4:17, :10].all() and not dog[:2].any() and not dog[:, 11:].any()
    assert (part.masks[1, 6:, 3:11] == class_of[0] + 1).all() and (part.masks[1, 6:, 13:] == 0).all()
    assert part.images[0, 0][dog].mean() > 0.7 and part.images[0, 0][part.masks[0] == 0].mean() < 0.1


def test_without_masks_all_images_count(tmp_path):
    packed_voc(tmp_path)
    notes = json.loads((tmp_path / "voc2007" / "boxes.json").read_text(encoding="utf-8"))
    notes["000001"]["objects"].append({"name": "car", "bbox": [40, 0, 60, 40], "difficult": 1})
    (tmp_path / "voc2007" / "boxes.json").write_text(json.dumps(notes), encoding="utf-8")
    part = load_annotated("voc", size=20, root=tmp_path, with_masks=False)
    assert len(part) == 3 and (part.masks[1] == IGNORE).all()
    assert [part.class_names[kind] for kind in part.box_classes[1]] == ["car"]
    assert len(load_annotated("voc", size=20, root=tmp_path)) == 2
    drawn = [load_annotated("voc", count=2, seed=seed, size=20, root=tmp_path, with_masks=False) for seed in range(9)]
    assert len({part.images.numpy().tobytes() for part in drawn}) > 1


def test_a_crowd_is_in_the_mask_alone(tmp_path):
    official_coco(tmp_path)
    part = coco.load(size=40, root=tmp_path)
    packed_coco(tmp_path)
    packed = coco.load("train", size=40, root=tmp_path)
    assert packed.provenance != part.provenance
    assert part.masks[1].max() == 3 and len(part.boxes[1]) == 1  # rows 10 to 50 are seen, the crowd is above
    tall = coco._read_official(tmp_path / "coco" / "annotations" / "instances_val2017.json")[0][2].mask()
    assert (tall[:10] == 1).all() and (tall[10:20] == 0).all()


def test_voc_is_downloaded_by_torchvision(tmp_path, monkeypatch):
    calls = []

    def download(root, year, image_set, download):
        calls.append((root, year, image_set, download))
        official_voc(root)

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", download)
    assert len(load_annotated("voc", size=20, root=tmp_path, download=True)) == 2
    assert len(load_annotated("voc", size=20, root=tmp_path, download=True)) == 2
    assert calls == [(tmp_path / "voc", "2007", "test", True)]

    def fail(*_, **__):
        raise RuntimeError("no such archive")

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", fail)
    with pytest.warns(UserWarning, match="could not be downloaded .no such archive"):
        assert load_annotated("voc", split="train", size=20, root=tmp_path, download=True).name == "scenes"


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_scenes_stand_in_visibly(name, tmp_path):
    with pytest.warns(UserWarning, match=f"{name} is replaced by scenes, since there is neither"):
        part = load_annotated(name, count=3, size=32, root=tmp_path)
    assert part.name == "scenes" and part.images.shape == (3, 3, 32, 32)
    assert f"A stand-in for {name}, since" in part.provenance and str(tmp_path) not in part.provenance


@pytest.mark.parametrize(
    ("layout", "file", "content"),
    [
        (packed_voc, "voc2007/boxes.json", b"{"),
        (packed_voc, "voc2007/images/000000.jpg", b"no picture"),
        (packed_voc, "voc2007/masks/000002.png", b""),
        (official_voc, "VOCdevkit/VOC2007/Annotations/000000.xml", b"<annotation>"),
        (packed_coco, "coco/splits.json", b"{}"),
        (official_coco, "coco/annotations/instances_val2017.json", b"[]"),
    ],
)
def test_damaged_files_are_replaced(layout, file, content, tmp_path):
    layout(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert load_annotated(layout.__name__.split("_")[1], size=20, root=tmp_path).name == "scenes"


# What an annotation says and what its picture holds may contradict each other


def change_voc(root, old, new):
    for path in (root / "VOCdevkit/VOC2007/Annotations").iterdir():
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<width>60<", "<width>120<", "000000.jpg has 60 × 40 pixels, and its annotation notes 120 × 40"),
        ("<width>60<", "<width>0<", "notes a size of 0 × 40"),
        ("<size>", "<dimensions>", "000000.jpg has no size/height"),
        (
            "<xmax>44<",
            "<xmax>62<",
            r"a box \(x0, y0, x1, y1\) = \(32.0, 8.0, 62.0, 20.0\), which does not lie in its 60",
        ),
        ("<xmax>30<", "<xmax>7<", "which does not lie in its 60 × 40"),
        ("<xmin>11<", "<xmin>nan<", "which does not lie in its 60 × 40"),
        ("<ymax>35</ymax>", "", "000000.jpg has no bndbox/ymax"),
        ("<name>cat<", "<name>lynx<", "names the class 'lynx', which is none of VOC's twenty"),
    ],
)
def test_a_wrong_annotation_is_refused_for_its_own_reason(old, new, reason, tmp_path):
    official_voc(tmp_path)
    change_voc(tmp_path, old, new)
    if old == "<size>":
        change_voc(tmp_path, "</size>", "</dimensions>")
    with pytest.warns(UserWarning, match=f"voc is replaced by scenes, since .*{reason}"):
        assert load_annotated("voc", size=20, root=tmp_path).name == "scenes"


def test_a_box_may_stick_out_by_a_rounding(tmp_path):
    official_voc(tmp_path)
    change_voc(tmp_path, "<xmax>44<", "<xmax>61<")
    assert load_annotated("voc", size=20, root=tmp_path).boxes[0][1, 2] == 20


def test_no_image_fits(tmp_path):
    official_voc(tmp_path)
    for mask in (tmp_path / "VOCdevkit/VOC2007/SegmentationClass").iterdir():
        mask.unlink()
    with pytest.warns(UserWarning, match="no image of test, the official files has a mask; pass with_masks=False"):
        load_annotated("voc", size=20, root=tmp_path)
    assert len(load_annotated("voc", size=20, root=tmp_path, with_masks=False)) == 2
    change_voc(tmp_path, "object>", "thing>")
    with pytest.warns(UserWarning, match="none of the 3 images of test, the official files shows an object"):
        load_annotated("voc", size=20, root=tmp_path, with_masks=False)


def entry(path, boxes=((10.0, 5, 30, 35),), size=(60, 40), mask=None):
    return pictures.Entry(path, mask, size[1], size[0], torch.tensor(boxes), torch.zeros(len(boxes)).long())


@pytest.mark.parametrize("turn", range(2, 9))
def test_pictures_are_turned_as_their_boxes_were_drawn(turn, tmp_path):
    shown, note = picture(0)[0], Image.Exif()
    note[0x0112] = turn
    # Pillow undoes a turn; what undoes it from the shown picture is found by trying all eight.
    stored = next(each for each in map(shown.transpose, Image.Transpose) if _turned(each, note) == shown.tobytes())
    stored.save(tmp_path / "a.png", exif=note)

    def read(width, height):
        return pictures._read(entry(tmp_path / "a.png", size=(width, height)), min(width, height), 20)[0]

    if stored.size == shown.size:  # mirrored or upside down: the size does not tell
        with pytest.raises(OSError, match="a.png is turned by its EXIF note"):
            read(60, 40)
        return
    for upright, frame in ((shown, (60, 40)), (stored, (40, 60))):
        expected = annotated.square(torch.tensor(np.array(upright)).permute(2, 0, 1), None, 40)[0]
        assert torch.equal(read(*frame), expected)


def _turned(stored, note):
    stored.getexif().update(note)
    return ImageOps.exif_transpose(stored).tobytes()


def test_pictures_of_every_mode():
    grey = np.linspace(0, 255, 48).round().astype(np.uint8).reshape(6, 8)
    colour = Image.fromarray(np.stack([grey, grey[::-1], 255 - grey], -1))
    for mode in ("RGB", "CMYK", "RGBA"):
        assert np.abs(np.asarray(pictures.colours(colour.convert(mode))).astype(int) - np.asarray(colour)).max() <= 1
    for same in (
        Image.fromarray(grey),
        Image.fromarray(grey.astype(np.uint16) * 257),
        Image.fromarray(grey).convert("P"),
    ):
        assert (np.asarray(pictures.colours(same)) == grey[..., None]).all()
    half = colour.copy()
    half.putalpha(Image.fromarray(np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)[None].repeat(6, 0)))
    seen = np.asarray(pictures.colours(half))
    assert (seen[:, :4] == np.asarray(colour)[:, :4]).all() and (seen[:, 4:] == 255).all()
    with pytest.raises(OSError, match="mode F has no white"):
        pictures.colours(Image.fromarray(grey.astype(np.float32)))


def test_masks_in_colours(tmp_path):
    truth = np.array([[0, 15, 15, 7], [0, 15, 255, 20]], np.uint8)
    person, car, monitor, border = (192, 128, 128), (128, 128, 128), (0, 64, 128), (224, 224, 192)  # VOC's own
    shown = {0: (0, 0, 0), 7: car, 15: person, 20: monitor, 255: border}
    painted = Image.fromarray(np.array([[shown[number] for number in row] for row in truth.tolist()], np.uint8))
    grey = Image.fromarray(truth)
    for picture in (painted, painted.convert("RGBA"), painted.quantize(5), grey, grey.convert("P")):
        picture.save(tmp_path / "mask.png")
        assert (masks.numbers(tmp_path / "mask.png").numpy() == truth).all(), picture.mode
    for wrong, reason in (
        (Image.new("RGB", (4, 2), (192, 128, 127)), r"the colour \(192, 128, 127\), which is none of VOC's"),
        (Image.new("RGB", (4, 2), (192, 128, 127)).quantize(2), "which is none of VOC's"),
        (Image.fromarray(truth > 0), "pixels of mode 1"),
        (Image.fromarray(truth.astype(np.uint16) * 257), "holds 65535, which is the number of no class"),
    ):
        wrong.save(tmp_path / "mask.png")
        with pytest.raises(OSError, match=reason):
            masks.numbers(tmp_path / "mask.png")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda mask: mask.point(lambda number: 1 if number else 0),
            r"shows none of the annotated objects \(\[1\] in p",
        ),
        (lambda mask: mask.point(lambda number: 255 if number else 0), "shows none of the annotated objects .no class"),
        (lambda mask: mask.transpose(Image.Transpose.ROTATE_90), "another shape than the noted 60 × 40"),
        (
            lambda mask: mask.point(lambda number: 21 if number == 8 else number),
            "holds 21, which is the number of no cl",
        ),
    ],
)
def test_a_mask_of_another_kind_is_refused(change, reason, tmp_path):
    official_voc(tmp_path)
    path = tmp_path / "VOCdevkit/VOC2007/SegmentationClass/000000.png"
    change(Image.fromarray(np.array(Image.open(path)))).save(path)
    with pytest.warns(UserWarning, match=f"since .*{reason}"):
        load_annotated("voc", size=20, root=tmp_path)


def test_a_coarser_mask_of_the_whole_picture_serves(tmp_path):
    official_voc(tmp_path)
    whole = load_annotated("voc", size=20, root=tmp_path).masks
    for path in (tmp_path / "VOCdevkit/VOC2007/SegmentationClass").iterdir():
        mask = Image.fromarray(np.array(Image.open(path)))
        mask.resize((mask.width // 2, mask.height // 2), Image.Resampling.NEAREST).save(path)
    assert (load_annotated("voc", size=20, root=tmp_path).masks == whole).float().mean() > 0.95


def change_coco(root, change):
    path = root / "coco/annotations/instances_val2017.json"
    notes = json.loads(path.read_text(encoding="utf-8"))
    change(notes)
    path.write_text(json.dumps(notes), encoding="utf-8")


def test_exports_in_cocos_form_leave_things_out(tmp_path):
    official_coco(tmp_path)
    whole = coco.load(size=20, root=tmp_path)

    def bare(notes):
        notes["annotations"] = [thing for thing in notes["annotations"] if not thing["iscrowd"]]
        for thing in notes["annotations"]:
            del thing["iscrowd"], thing["area"]

    change_coco(tmp_path, bare)
    part = coco.load(size=20, root=tmp_path)
    assert torch.equal(part.masks[0], whole.masks[0]) and torch.equal(part.boxes[1], whole.boxes[1])
    change_coco(tmp_path, lambda notes: notes["annotations"][0].update(segmentation=[]))  # a dog without an outline
    assert len(coco.load(size=20, root=tmp_path)) == 1
    assert (coco.load(size=20, root=tmp_path, with_masks=False).masks[0] == IGNORE).all()
    change_coco(tmp_path, lambda notes: notes["annotations"][0].update(category_id=99))
    with pytest.warns(UserWarning, match=r"coco is replaced by scenes, since COCO in .* is damaged .no entry 99"):
        load_annotated("coco", size=20, root=tmp_path)


def test_compressed_run_lengths():
    disc_counts = "k0652N2O0000000001N2Nf0"  # pycocotools' string for a disc of radius 5.5 in 12 × 14 pixels
    rows, columns = np.indices((12, 14))
    disc = (rows - 5.5) ** 2 + (columns - 6.5) ** 2 < 5.5**2
    assert (masks.decode({"size": [12, 14], "counts": disc_counts}) == disc).all()
    assert (masks.decode({"size": [12, 14], "counts": disc_counts.encode()}) == disc).all()


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="name must be one of coco, scenes, voc; got 'imagenet'"):
        load_annotated("imagenet")
    packed_voc(tmp_path)
    with pytest.raises(ValueError, match="count must be None or an integer from 1 to 2"):
        load_annotated("voc", count=3, size=20, root=tmp_path)
    for wrong in ({"split": "val"}, {"year": 2010}):
        with pytest.raises(ValueError, match="split must be 'train' or 'test' and year 2007 or 2012"):
            load_annotated("voc", **wrong)
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        load_annotated("coco", split="val")
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        load_annotated("scenes", split="val")


@pytest.mark.skipif(not (REAL / "voc2007").exists(), reason="LFX_DATA has no voc2007")
def test_real_voc():
    part = load_annotated("voc", size=128)
    assert part.name == "voc2007" and len(part) > 50
    assert part.foreground().any((1, 2)).all()
    # The objects' pixels lie in the boxes; those of an unlisted object would not.
    assert part.inside()[part.foreground()].float().mean() > 0.97
