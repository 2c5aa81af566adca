"""The data sets, by name; a real one that is not at hand is replaced, visibly, by its embedded stand-in."""

import warnings
from dataclasses import replace
from types import ModuleType

from . import cifar10, digits, dsprites, ecg5000, heartbeats, mnist, photographs, sprites
from .base import Dataset, Unavailable, data_root

__all__ = ["Dataset", "Unavailable", "data_root", "load"]

MODULES: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (cifar10, digits, dsprites, ecg5000, heartbeats, mnist, photographs, sprites)
}


def load(name: str, *, train=None, test=None, seed=0, root=None, download=False, **options) -> Dataset:
    """Load a data set by its name, or the embedded one that stands in for it.

    Embedded, always at hand: `digits`, `heartbeats`, `photographs`, `sprites`. Real, with their stand-ins: `mnist`
    (digits), `ecg5000` (heartbeats), `cifar10` (photographs), `dsprites` (sprites). A stand-in is announced by a
    warning, carries its own name, says in its provenance what it replaces and why, and gives all it has where more was
    asked for.

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
    if name not in MODULES:
        raise ValueError(f"name must be one of {', '.join(sorted(MODULES))}; got {name!r}.")
    module = MODULES[name]
    try:
        return module.load(train, test, seed, root, download, **options)
    except Unavailable as error:
        reason = " ".join(str(error).split())
    stand_in = MODULES[module.STAND_IN]
    advice = "check the connection" if download else "set LFX_DATA to the folder that holds it or pass download=True"
    warnings.warn(f"{name} is replaced by {module.STAND_IN}, since {reason}; to have it, {advice}.", stacklevel=2)
    most = stand_in.sizes(**options)
    train, test = (size if size is None else min(size, limit) for size, limit in zip((train, test), most, strict=True))
    dataset = stand_in.load(train, test, seed, **options)
    # The provenance goes into published results, which should not name a reader's folders.
    reason = reason.replace(str(data_root(root)), "ROOT")
    return replace(dataset, provenance=f"{dataset.provenance} A stand-in for {name}, since {reason}.")
