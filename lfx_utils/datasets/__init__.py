"""The data sets, by name; a real one that is not at hand is replaced, visibly, by its embedded stand-in."""

import warnings
from contextlib import suppress
from dataclasses import replace
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cifar10, coco, digits, dsprites, ecg5000, heartbeats, mnist, photographs, scenes, sprites, svhn, voc
from .annotated import IGNORE, Annotated
from .base import Dataset
from .files import Unavailable, data_root
from .own_photographs import from_skimage, photograph

__all__ = [
    "IGNORE", "Annotated", "Dataset", "Unavailable", "data_root", "from_skimage", "load", "load_annotated",
    "photograph", "some_photographs",
]  # fmt: skip


def _named(*modules: ModuleType) -> dict[str, ModuleType]:
    return {module.__name__.rpartition(".")[2]: module for module in modules}


LABELLED = _named(cifar10, digits, dsprites, ecg5000, heartbeats, mnist, photographs, sprites, svhn)
ANNOTATED = _named(coco, scenes, voc)
MODULES: dict[str, ModuleType] = LABELLED | ANNOTATED


def load(name: str, *, train=None, test=None, seed=0, root=None, download=False, **options) -> Dataset:
    """Load a data set by its name, or the embedded one that stands in for it.

    Embedded, always at hand: `digits`, `heartbeats`, `photographs`, `sprites`. Real, with their stand-ins: `mnist`
    (digits), `ecg5000` (heartbeats), `cifar10` and `svhn` (photographs), `dsprites` (sprites). A stand-in is announced
    by a warning, carries its own name, says in its provenance what it replaces and why, and gives all it has where
    more was asked for.

    Args:
        name: one of the above.
        train: how many training examples to draw, None for all.
        test: how many test examples to draw, None for all.
        seed: of the draw.
        root: the folder that holds the data; default `$LFX_DATA`, else a cache folder of the user's.
        download: fetch what is missing.
        **options: passed on; `heartbeats` and `ecg5000` take `split`.

    Raises:
        ValueError: an unknown name, or more examples than the set has.

    >>> load("digits", train=100, test=10).train.shape
    torch.Size([100, 1, 28, 28])
    """
    if name not in LABELLED:
        raise ValueError(f"name must be one of {', '.join(sorted(LABELLED))}; got {name!r}.")
    module = LABELLED[name]
    try:
        return module.load(train, test, seed, root, download, **options)
    except Unavailable as error:
        reason = _replaced(name, module, error, download)
    stand_in = LABELLED[module.STAND_IN]
    most = stand_in.sizes(**options)
    train, test = (size if size is None else min(size, limit) for size, limit in zip((train, test), most, strict=True))
    dataset = stand_in.load(train, test, seed, **options)
    return _marked(dataset, name, reason, root)


def load_annotated(
    name: str, *, split="test", count=None, seed=0, size=64, root=None, with_masks=True, download=False, **options
) -> Annotated:
    """Load images with boxes and masks by the set's name, or the embedded scenes that stand in for them.

    Embedded, always at hand: `scenes`. Real, with scenes as their stand-in: `voc`, `coco`. A stand-in is announced by
    a warning, carries its own name, and says in its provenance what it replaces and why.

    Args:
        name: one of the above.
        split: `"train"` or `"test"`.
        count: how many images to draw, None for all (500 scenes).
        seed: of the draw, or of the scenes.
        size: side of the square images in pixels.
        root: the folder that holds the data; default `$LFX_DATA`, else a cache folder of the user's.
        with_masks: only images that have a mask.
        download: fetch what is missing (VOC).
        **options: passed on; `voc` takes `year`, `scenes` what `scenes.generate` takes.

    Raises:
        ValueError: an unknown name, or more images than the set has.

    >>> load_annotated("scenes", count=3).masks.shape
    torch.Size([3, 64, 64])
    """
    if name not in ANNOTATED:
        raise ValueError(f"name must be one of {', '.join(sorted(ANNOTATED))}; got {name!r}.")
    module = ANNOTATED[name]
    try:
        return module.load(split, count, seed, size, root, with_masks, download, **options)
    except Unavailable as error:
        reason = _replaced(name, module, error, download)
    return _marked(ANNOTATED[module.STAND_IN].load(split, count, seed, size), name, reason, root)


def some_photographs(count: int, size: int = 224, seed: int = 0, root=None) -> Tensor:
    """Draw photographs to explain, `(N, 3, size, size)` in [0, 1]: VOC 2012's animals, or scikit-image's eight.

    Args:
        count: how many; of scikit-image's at most 48, turned over and cut closer where more than eight are asked for.
        size: side of the squares in pixels.
        seed: of the draw from VOC.
        root: the data root, see `load`.

    >>> some_photographs(9, size=32).shape
    torch.Size([9, 3, 32, 32])
    """
    try:
        return voc.load("train", count, seed, size, root, year=2012).images
    except Unavailable:
        images, _ = from_skimage(2 * size)
    edge = size // 4
    cuts = [
        F.interpolate(images[..., cut : -cut or None, cut : -cut or None], size, mode="area")
        for cut in (0, edge, edge + edge // 2)
    ]
    return torch.cat([part for cut in cuts for part in (cut, cut.flip(-1))])[:count]


def _replaced(name: str, module: ModuleType, error: Unavailable, download: bool) -> str:
    reason = " ".join(str(error).split())
    advice = "LFX_DATA names the folder that is looked in"
    if not download and module is not coco:  # which nothing fetches
        advice += ", and download=True fetches what is missing"
    warnings.warn(f"{name} is replaced by {module.STAND_IN}, since {reason}. {advice}.", stacklevel=3)
    return reason


def _marked(dataset, name: str, reason: str, root):
    # The provenance goes into published results, which should not name a reader's folders.
    with suppress(Unavailable):
        reason = reason.replace(str(data_root(root)), "ROOT")
    return replace(dataset, provenance=f"{dataset.provenance} A stand-in for {name}, since {reason}.")
