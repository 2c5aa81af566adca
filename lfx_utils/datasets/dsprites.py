"""dSprites, from DeepMind's file or from a packed part of it in the data root."""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .files import Unavailable, data_root, fetch, first_sound, sound
from .sprites import SIDE, N, Sprites, divide, split

STAND_IN = "sprites"
OFFICIAL = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
MD5 = "7da33b31b13a06f4b04a70402ce90c2e"
PACKS = {
    "dsprites_random20k.npz": "8786ebbcff1740fcd79aab34f1c357c3a146823e9df353e9367478d5eb0ceef0",
    "dsprites_grid46k.npz": "d654434dab4cfd10340596f1cd5621ae89375a6f25d72f3767744bf467ae4532",
}  # SHA-256
SOURCES = (
    f"https://raw.githubusercontent.com/google-deepmind/dsprites-dataset/master/{OFFICIAL}",
    f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{OFFICIAL}",
)


def load(train=None, test=None, seed=0, root=None, download=False) -> Sprites:
    """Load dSprites from `<root>/dsprites`; the baseline is a black image.

    Looked for in this order: DeepMind's file, a download of it, the packed parts `dsprites_random20k.npz` and
    `dsprites_grid46k.npz` (64,834 images together), of which the sound ones serve. An index is in the same part,
    training or test, wherever it is read from, the generated `sprites` included.

    Args:
        train: how many training examples (at most 663,552; 58,341 of the packs), None for 18,000.
        test: how many test examples (at most 73,728; 6,493 of the packs), None for 2,000.
        seed: of the draw.
        root: the data root, see `data_root`.
        download: fetch DeepMind's file (26 MB).

    Returns:
        images `(N, 1, 64, 64)`, labels 0–2 for the shape, and the factors.

    Raises:
        Unavailable: the files are missing or not sound, or the download failed.

    Source: Matthey et al. (2017), dSprites, Apache-2.0; 90/10 from LF, Section 4.3; baseline from LF, App. C.3.
    """
    folder = data_root(root) / "dsprites"
    official = folder / OFFICIAL
    try:
        if download:
            _download(official)
        parts, images, how = first_sound([(official, _read_official)], f"{official} is missing")
    except Unavailable as error:
        parts, images, how = _read_packs(folder, str(error))
    return divide("dsprites", parts, images, (train, test), seed, f"dSprites from {how}.")


def _verify(path: Path, method: str, expected: str) -> None:
    with sound(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, method).hexdigest()
    if digest != expected:
        raise Unavailable(f"{path} is not the known file (its checksum differs)")


def _read_official(path: Path):
    _verify(path, "md5", MD5)
    return split(), _scan(path), "DeepMind's file, MD5 checked"


def _read_packs(folder: Path, reason: str):
    """Read the packs that are sound; `reason` says why DeepMind's file does not serve."""
    packs, reasons = [], [reason]
    for name, sha256 in PACKS.items():
        try:
            _verify(folder / name, "sha256", sha256)
            packs.append(folder / name)
        except Unavailable as error:
            reasons.append(str(error))
    if not packs:
        raise Unavailable("; ".join(reasons))
    held, images = _unpack(packs)
    parts = [part[torch.isin(part, held)] for part in split()]
    return parts, images, f"{len(held):,} of DeepMind's images, SHA-256 checked"


def _unpack(packs: list[Path]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    index, images = [], []
    for path in packs:
        with np.load(path) as arrays:
            index.append(arrays["original_index"])
            images.append(arrays["imgs"])
    held, first = np.unique(np.concatenate(index), return_index=True)
    held, images = torch.as_tensor(held).long(), torch.as_tensor(np.concatenate(images)[first])
    return held, lambda wanted: images[torch.searchsorted(held, wanted)].float()[:, None]


def _scan(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a look-up that reads the compressed images one after the other and keeps only those it is asked for."""

    def images(wanted: Tensor) -> Tensor:
        order = wanted.argsort()
        ranked = wanted[order].numpy()
        kept = np.empty((len(wanted), SIDE, SIDE), np.uint8)
        with zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            if shape != (N, SIDE, SIDE) or dtype != np.uint8:
                raise Unavailable(f"{path} does not hold {N} images of {SIDE} × {SIDE} bytes")
            for start in range(0, N, 4_096):
                first, last = np.searchsorted(ranked, (start, min(start + 4_096, N)))
                chunk = file.read(min(4_096, N - start) * SIDE * SIDE)
                kept[first:last] = np.frombuffer(chunk, np.uint8).reshape(-1, SIDE, SIDE)[ranked[first:last] - start]
        found = torch.empty(len(wanted), 1, SIDE, SIDE)
        found[order] = torch.as_tensor(kept).float()[:, None]
        return found

    return images


def _download(path: Path) -> None:
    """Fetch the file, unless a sound one is there."""
    try:
        return _verify(path, "md5", MD5)
    except Unavailable:
        failures = []
    for address in SOURCES:
        try:
            raw = fetch(address, timeout=120)
        except Unavailable as error:
            failures.append(str(error))
            continue
        if hashlib.md5(raw).hexdigest() != MD5:
            failures.append(f"{address} did not give the known file")
            continue
        with sound(f"the download to {path.parent}", "cannot be kept"):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_bytes(raw)
            part.replace(path)
        return
    raise Unavailable("no source gave dSprites: " + "; ".join(failures))
