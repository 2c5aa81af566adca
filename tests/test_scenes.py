"""The generated scenes: their draws, outlines, masks and boxes, and that only the shape tells the class."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from lfx_utils.chapters.claims import settings
from lfx_utils.datasets import MODULES, load_annotated, scenes


@pytest.fixture(scope="module")
def drawn():
    return scenes.generate(80, seed=3)


def test_a_scene_depends_on_seed_and_index_alone(drawn):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    fewer = scenes.generate(66, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(fewer.images, drawn.images[:66]) and torch.equal(fewer.masks, drawn.masks[:66])
    assert not torch.equal(scenes.generate(4, seed=4).images, drawn.images[:4])
    assert len({image.numpy().tobytes() for image in drawn.images}) == 80


def test_contract(drawn):
    assert drawn.images.shape == (80, 3, 64, 64) and drawn.images.dtype == torch.float32
    assert 0 <= drawn.images.min() and drawn.images.max() <= 1
    assert drawn.masks.dtype == torch.int64 and 0 <= drawn.masks.min() and drawn.masks.max() == len(drawn.class_names)
    for mask, labels, kinds, boxes in zip(drawn.masks, drawn.labels, drawn.box_classes, drawn.boxes):
        assert 1 <= len(boxes) == len(kinds) <= 3
        assert {int(value) - 1 for value in mask.unique()} - {-1} == set(kinds.tolist())
        assert labels.nonzero().flatten().tolist() == sorted(set(kinds.tolist()))


def test_the_stand_in_is_known_to_the_ledger():
    assert MODULES["voc"].STAND_IN == MODULES["coco"].STAND_IN == "scenes"
    assert not any("scenes" in setting.get("data", "").split() for setting in settings().values())
    assert load_annotated("scenes", count=2).name == "scenes"


def test_training_and_test_scenes_differ():
    parts = [
        load_annotated("scenes", split=split, count=3, seed=seed) for seed in (0, 1) for split in ("train", "test")
    ]
    assert len({part.images.numpy().tobytes() for part in parts}) == 4


def test_boxes_by_brute_force():
    owner = torch.zeros(2, 16, 16, dtype=torch.long)
    owner[0, 2:5, 3:9], owner[0, 4:12, 8:10], owner[1, 15, 0] = 1, 3, 2
    seen, edges = scenes._boxes(owner)
    for image in range(2):
        for layer in range(3):
            rows, columns = np.nonzero(owner[image].numpy() == layer + 1)
            assert seen[image, layer] == (len(rows) > 0)
            if len(rows):
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert edges[image, layer].tolist() == box


def test_a_single_object_s_box_is_its_mask_s():
    alone = scenes.generate(40, seed=8, objects=1)
    for mask, boxes in zip(alone.masks, alone.boxes):
        rows, columns = np.nonzero(mask.numpy())
        assert boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]


def test_empty_scenes_are_the_same_grounds(drawn):
    empty = scenes.generate(80, seed=3, objects=0)
    assert not empty.masks.any() and not empty.labels.any() and all(len(boxes) == 0 for boxes in empty.boxes)
    near = F.max_pool2d((drawn.masks > 0).float()[:, None], 9, 1, 4)[:, 0] > 0  # a sharp tip fades over four pixels
    same = (drawn.images == empty.images).all(1)
    assert same[~near].all()
    assert same[drawn.masks > 0].float().mean() < 0.01


# Areas by closed form; the crescent is a disc less its common part with another.


def lens(first, second, distance):
    turn = [math.acos((distance**2 + a**2 - b**2) / (2 * distance * a)) for a, b in ((first, second), (second, first))]
    return sum(r**2 * (t - math.sin(2 * t) / 2) for r, t in zip((first, second), turn))


AREAS = {
    "disc": math.pi * 0.85**2,
    "square": 1.4**2,
    "triangle": 3 * math.sqrt(3) * 0.5**2,
    "star": 5 * 0.4 * math.sin(math.pi / 5),
    "ring": math.pi * (0.9**2 - 0.46**2),
    "cross": 2 * 0.56 * 1.84 - 0.56**2,
    "crescent": math.pi * 0.95**2 - lens(0.95, 0.78, 0.42),
    "heart": 1 + math.pi / 4,
}


@pytest.mark.parametrize("kind", scenes.CLASS_NAMES)
def test_outlines(kind):
    axis = torch.linspace(-1.2, 1.2, 961)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    distance = scenes.OUTLINES[kind](u, v)
    step = axis[1] - axis[0]
    assert (distance <= 0).sum() * step**2 == pytest.approx(AREAS[kind], rel=0.01)
    assert torch.hypot(u, v)[distance <= 0].max() < 1.01
    # A distance has slope 1: then an edge is one pixel wide at any size.
    slope = torch.hypot(*(difference / step for difference in torch.gradient(distance)))
    assert slope[distance.abs() < 0.02].quantile(0.05) > 0.97 and slope[distance.abs() < 0.02].max() < 1.03


def test_another_size_is_the_same_scene():
    small, large = (scenes.generate(12, seed=2, size=size, ground="procedural") for size in (64, 512))
    assert (F.avg_pool2d(large.images, 8) - small.images).abs().mean() < 0.01
    share = torch.stack([F.avg_pool2d((large.masks == kind).float(), 8) for kind in range(9)])
    assert (share.argmax(0) == small.masks).float().mean() > 0.995
    for few, many in zip(small.boxes, large.boxes):
        assert (few - many / 8).abs().max() <= 2  # a tip is narrower than a coarse pixel


def test_only_the_shape_tells_the_class():
    alone = scenes.generate(1_000, seed=6, objects=1)
    inside = alone.foreground()[:, None]
    colour = (alone.images * inside).sum((2, 3)) / inside.sum((2, 3))
    kinds = torch.cat(alone.box_classes)
    place = torch.cat(alone.boxes)
    known = torch.cat([colour, (place[:, :2] + place[:, 2:]) / 128], 1)
    classifier = LogisticRegression(max_iter=500).fit(known[:500], kinds[:500])
    assert classifier.score(known[500:], kinds[500:]) < 1 / 8 + 3 * math.sqrt(7 / 64 / 500)
    assert kinds.bincount(minlength=8).min() > 90


def test_the_shortcut_is_the_only_difference(drawn):
    marked, spot = scenes.generate(80, seed=3, shortcut="ring"), scenes.mark(64)
    ring = drawn.labels[:, scenes.CLASS_NAMES.index("ring")]
    assert 5 < ring.sum() < 75
    changed = (marked.images != drawn.images).any(1)
    assert torch.equal(changed.any((1, 2)), ring)
    assert changed[ring][:, spot].all() and not changed[:, ~spot].any()
    assert not marked.masks[ring][:, spot].any() and torch.equal(marked.masks[:, ~spot], drawn.masks[:, ~spot])
    assert torch.equal(scenes.plant(drawn.images)[ring], marked.images[ring])
    assert torch.equal(scenes.generate(4, shortcut=4).images, scenes.generate(4, shortcut="ring").images)


def test_grounds():
    flat = scenes.generate(60, seed=1, objects=0, ground="procedural").images
    real = scenes.generate(60, seed=1, objects=0, ground="photographs").images
    mixed = scenes.generate(60, seed=1, objects=0).images
    sources = [(mixed == kind).flatten(1).all(1) for kind in (flat, real)]
    assert torch.equal(sources[0], ~sources[1])
    assert 0.4 < sources[1].float().mean() < 0.9


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"count": 0}, "count must be an integer of at least 1, got 0"),
        ({"count": 2.5}, "count must be"),
        ({"seed": -1}, "seed must be"),
        ({"size": 8}, "size must be an integer of at least 16"),
        ({"objects": 4}, "objects must be"),
        ({"objects": (2, 1)}, "objects must be"),
        ({"ground": "forest"}, "ground must be one of mixed, photographs, procedural; got 'forest'"),
        ({"shortcut": "hexagon"}, "shortcut must be None"),
        ({"shortcut": 8}, "shortcut must be None"),
    ],
)
def test_bad_arguments(wrong, said):
    with pytest.raises(ValueError, match=said):
        scenes.generate(**{"count": 1, **wrong})
