"""Sprites: factors and indices, the drawing against pictures and figures of the real set, files, stand-ins."""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lfx_utils.datasets import Unavailable, dsprites, load, sprites

REAL = Path(os.environ.get("LFX_DATA", "nowhere")) / "dsprites"

# Cut out of DeepMind's images of scale 1, orientation 4, position 16 × 16: the first row and column, and the rows.
HEART_TURNED = (21, 21, """
    ...........###.... .........#######.. .........########. ........#########. ........##########
    ........########## ...####.########## .#######.######### .################# ##################
    ################## ################## .################. .################. ..###############.
    ...##############. .....############. ............#####. ................#.""")  # fmt: skip
ELLIPSE_TURNED = (23, 21, """
    .............#######... ...........##########.. .........#############. ........##############.
    ......################# .....################## ....##################. ...###################.
    ...###################. ..###################.. .###################... .###################...
    .##################.... ##################..... #################...... .###############.......
    .#############......... ..##########........... ...#######.............""")  # fmt: skip
# Of its images at position 16 × 16: shape, scale, area, first and last row, first and last column.
UPRIGHT = [
    (0, 0, 81, 28, 36, 28, 36), (0, 5, 361, 23, 41, 23, 41), (1, 0, 75, 29, 35, 26, 38), (1, 5, 294, 25, 39, 20, 44),
    (2, 0, 57, 28, 36, 28, 36), (2, 3, 141, 25, 39, 25, 39), (2, 5, 226, 23, 41, 23, 41),
]  # fmt: skip


def one(**levels):
    return sprites.render(sprites.locate(**levels)[None])[0, 0]


def test_every_index_has_its_own_factors():
    index = torch.arange(sprites.N)
    decoded = sprites.factors(index)
    expected = np.stack(np.unravel_index(np.arange(sprites.N), (3, 6, 40, 32, 32)), 1)
    assert (decoded.numpy() == expected).all()
    assert torch.equal(sprites.locate(**dict(zip(sprites.FACTORS, decoded.T, strict=True))), index)
    assert torch.equal(sprites.factors(index[-9:], "y", "shape"), decoded[-9:, [4, 0]])


@pytest.mark.parametrize("shape, picture", [(2, HEART_TURNED), (1, ELLIPSE_TURNED)], ids=["heart", "ellipse"])
def test_against_pictures_of_the_real_set(shape, picture):
    top, left, rows = picture
    rows = np.array([[letter == "#" for letter in row] for row in rows.split()])
    real = np.zeros((64, 64), bool)
    real[top : top + len(rows), left : left + rows.shape[1]] = rows
    drawn = one(shape=shape, scale=5, orientation=4, x=16, y=16).bool().numpy()
    assert (drawn != real).sum() <= 2 and (drawn[:, ::-1] != real).sum() > 40  # turned the other way it does not fit


@pytest.mark.parametrize("shape, scale, area, top, bottom, left, right", UPRIGHT)
def test_areas_and_edges_of_the_real_set(shape, scale, area, top, bottom, left, right):
    image = one(shape=shape, scale=scale, x=16, y=16)
    rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
    assert abs(int(image.sum()) - area) <= 1
    assert [rows[0], rows[-1], columns[0], columns[-1]] == [top, bottom, left, right]


def test_positions_of_the_real_set():
    real = {0: (11, 20), 2: (13, 22), 4: (15, 24), 10: (22, 30), 16: (28, 36), 22: (34, 43), 30: (42, 51)}
    for level, edges in real.items():
        across, down = one(x=level, y=7).any(0).nonzero(), one(x=7, y=level).any(1).nonzero()
        assert (across[0], across[-1]) == (down[0], down[-1]) == edges


def test_windows_hold_every_sprite_whole():
    # Drawn on the whole image, from the words of the data set's description, for the widest sprites at all positions.
    x = torch.arange(32)
    index = torch.cat([sprites.locate(shape=kind, scale=5, orientation=5, x=x, y=(3 * x) % 32) for kind in (0, 1)])
    angle, grid = 5 * 2 * np.pi / 39, np.arange(64) + 0.5
    pictures, levels = sprites.render(index)[:, 0].numpy(), sprites.factors(index).tolist()
    for picture, (shape, _, _, x, y) in zip(pictures, levels, strict=True):
        across, down = grid[None] - 16 - 32 * x / 31, grid[:, None] - 16 - 32 * y / 31
        u, v = across * np.cos(angle) - down * np.sin(angle), across * np.sin(angle) + down * np.cos(angle)
        whole = np.maximum(abs(u), abs(v)) <= 9.6 if shape == 0 else (u / 12.76) ** 2 + (v / 7.22) ** 2 <= 1
        assert (whole == picture).all()


def test_render_gives_what_is_asked_in_that_order():
    turns = sprites.locate(shape=2, scale=4, orientation=torch.tensor([0, 20, 39]), x=3, y=30)
    index = torch.cat([torch.tensor([737_279, 5, 5]), turns])
    together = sprites.render(index)
    assert together.shape == (6, 1, 64, 64) and together.dtype == torch.float32
    assert set(together.unique().tolist()) == {0, 1}
    assert torch.equal(together[3], together[5]) and not torch.equal(together[3], together[4])  # 360°, 180°
    for picture, alone in zip(together, index, strict=True):
        assert torch.equal(picture, sprites.render(alone[None])[0])
    assert sprites.render(index[:0]).shape == (0, 1, 64, 64)


def test_stream(monkeypatch):
    stream = sprites.stream(batch_size=1_000)
    first, pictures = next(stream)
    assert torch.equal(pictures[7:8], sprites.render(first[7:8]))
    monkeypatch.setattr(sprites, "render", lambda index: index)  # drawing all of them takes a quarter of a minute
    assert torch.equal(torch.cat([first, *(index for index, _ in stream)]), torch.arange(sprites.N))


def test_split():
    train, test = sprites.split()
    assert (len(train), len(test)) == sprites.sizes() == (663_552, 73_728)
    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(sprites.N))
    for name, levels in sprites.FACTORS.items():
        shares = sprites.factors(test, name)[:, 0].bincount() / len(test) * levels
        assert shares.min() > 0.9 and shares.max() < 1.1


def test_dataset():
    data = load("sprites", train=50, test=20, seed=3)
    assert data.train.shape == (50, 1, 64, 64) and data.test_factors.shape == (20, 5)
    assert torch.equal(data.train_labels, data.train_factors[:, 0]) and data.class_names[2] == "heart"
    index = sprites.locate(**dict(zip(sprites.FACTORS, data.train_factors.T, strict=True)))
    assert torch.equal(sprites.render(index), data.train) and torch.isin(index, sprites.split()[0]).all()
    assert data.baseline(data.test).eq(0).all()
    more, other = load("sprites", train=80, test=20, seed=3), load("sprites", train=50, test=20, seed=4)
    assert torch.equal(more.train[:50], data.train) and not torch.equal(other.train, data.train)
    with pytest.raises(ValueError, match="test must be .* 1 to 73728.*'sprites'.*got 80000"):
        load("sprites", train=5, test=80_000)


def test_unknown_factors_levels_and_indices():
    for index in (torch.tensor([-1]), torch.tensor([737_280]), torch.tensor([1.0]), torch.tensor(3), [3]):
        with pytest.raises(ValueError, match="index must"):
            sprites.render(index)
    with pytest.raises(ValueError, match="shape, scale, orientation, x, y; got 'colour'"):
        sprites.factors(torch.tensor([0]), "colour")
    with pytest.raises(ValueError, match="got 'colour'"):
        sprites.locate(colour=1)
    for level in (6, -1, 0.5):
        with pytest.raises(ValueError, match="scale must hold integers from 0 to 5"):
            sprites.locate(scale=level)


def test_stand_in_when_nothing_is_there(tmp_path):
    with pytest.warns(
        UserWarning, match="dsprites is replaced by sprites, since .*64x64.npz is missing; .*20k.npz is miss"
    ):
        data = load("dsprites", train=30, test=10, root=tmp_path)
    assert data.name == "sprites" and torch.equal(data.train, load("sprites", train=30, test=10).train)
    assert "stand-in for dsprites" in data.provenance and str(tmp_path) not in data.provenance


@pytest.mark.parametrize("name", [dsprites.OFFICIAL, *dsprites.PACKS])
def test_damaged_files(name, tmp_path):
    (tmp_path / "dsprites").mkdir()
    (tmp_path / "dsprites" / name).write_bytes(b"half a file")
    with pytest.raises(Unavailable, match=f"{name} is not the known file"):
        dsprites.load(5, 5, root=tmp_path)


def test_download(tmp_path, monkeypatch):
    monkeypatch.setattr(dsprites, "fetch", lambda address, timeout: b"<html>")
    with pytest.warns(UserWarning, match="no source gave dSprites.*not give the known file"):
        assert load("dsprites", train=5, test=5, root=tmp_path, download=True).name == "sprites"
    assert not list(tmp_path.rglob("*"))
    monkeypatch.setattr(dsprites, "MD5", hashlib.md5(b"<html>").hexdigest())
    (tmp_path / "dsprites").mkdir()
    (tmp_path / "dsprites" / dsprites.OFFICIAL).write_bytes(b"half a file")  # fetched anew, and kept
    with pytest.raises(zipfile.BadZipFile):
        dsprites.load(5, 5, root=tmp_path, download=True)
    assert [file.read_bytes() for file in (tmp_path / "dsprites").iterdir()] == [b"<html>"]


def test_packed_files(tmp_path, monkeypatch):
    # Two packs that share an image; their checksums take the place of the real packs'.
    (tmp_path / "dsprites").mkdir()
    rows = torch.randperm(sprites.N, generator=torch.Generator().manual_seed(1))[:300]
    sums = {}
    for name, part in zip(dsprites.PACKS, (rows[:200], rows[150:]), strict=True):
        path = tmp_path / "dsprites" / name
        images = sprites.render(part)[:, 0].byte().numpy()
        np.savez_compressed(path, imgs=images, original_index=part.numpy().astype(np.int32))
        sums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(dsprites, "PACKS", sums)
    train, test = (torch.isin(part, rows).sum().item() for part in sprites.split())
    data = load("dsprites", root=tmp_path)
    assert data.name == "dsprites" and (len(data.train), len(data.test)) == (train, test) and train + test == 300
    index = sprites.locate(**dict(zip(sprites.FACTORS, data.test_factors.T, strict=True)))
    assert torch.equal(sprites.render(index), data.test)
    with pytest.raises(ValueError, match=f"1 to {train}"):
        load("dsprites", root=tmp_path, train=301)


def official(path, count):
    """A file like DeepMind's: the images as bytes, and an array of Python objects that must never be unpickled."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.npy", b"not to be read")
        with archive.open("imgs.npy", "w") as file:
            header, facts = io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": (count, 8, 8)}
            np.lib.format.write_array_header_1_0(header, facts)
            file.write(header.getvalue())
            file.write((np.arange(count)[:, None] % 251 + np.arange(64)).astype(np.uint8).tobytes())


def test_official_file_is_read_in_passing(tmp_path, monkeypatch):
    monkeypatch.setattr(dsprites, "SIDE", 8)
    official(tmp_path / "all.npz", sprites.N)
    wanted = torch.tensor([737_279, 3, 4_095, 4_096, 250_000])
    expected = ((wanted % 251)[:, None] + torch.arange(64)) % 256
    assert torch.equal(dsprites._scan(tmp_path / "all.npz")(wanted), expected.float().view(5, 1, 8, 8))
    official(tmp_path / "few.npz", 10)
    with pytest.raises(Unavailable, match="does not hold 737280 images"):
        dsprites._scan(tmp_path / "few.npz")(wanted)


@pytest.mark.skipif(not all((REAL / name).is_file() for name in dsprites.PACKS), reason="LFX_DATA has no dsprites")
def test_every_real_image_at_hand():
    held, images = dsprites._unpack([REAL / name for name in dsprites.PACKS])
    assert len(held) == 64_834
    with np.load(REAL / "dsprites_random20k.npz") as arrays:
        index = torch.as_tensor(arrays["original_index"]).long()
        assert (sprites.factors(index).numpy() == arrays["latents_classes"]).all()
    wrong = torch.cat([(sprites.render(part) != images(part)).sum((1, 2, 3)) for part in held.split(4_096)])
    shape = sprites.factors(held, "shape")[:, 0]
    assert wrong.max() <= 0.01 * 64 * 64  # issue: at least square and ellipse
    for kind, (most, mean) in enumerate(((23, 0.05), (4, 0.12), (3, 0.06))):  # pixels of an image's 4,096
        assert wrong[shape == kind].max() <= most and wrong[shape == kind].double().mean() < mean
    assert (wrong == 0).double().mean() > 0.9
    # A full turn: pictures of orientations 0 and 39 are the same, where both are at hand.
    first = held[sprites.factors(held, "orientation")[:, 0] == 0]
    last = first + 39 * 32 * 32
    both = torch.isin(last, held)
    assert both.sum() > 100 and torch.equal(images(first[both]), images(last[both]))
