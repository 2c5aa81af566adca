"""Erratum 13: five paths of the released Label-Free package and of its scripts, tried on the libraries at hand.

    pip install lfxai==0.1.1
    python -m benchmarks.released            # prints what each path stops on
    python -m benchmarks.released --record   # and records how many stop, for `book/keep.py 02_consistency_features`

Where the package is not at hand there is nothing to try.
"""

import importlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from lfx_utils.chapters import ledger, start

BEATS = "@relation beats\n@attribute step numeric\n@attribute target {1,2}\n@data\n0.5,1\n"


def dsprites_script() -> None:
    """As `dsprites.py` imports it, from where the module no longer is."""
    importlib.import_module("explanations.features")


def cifar10_script() -> None:
    """As `cifar10.py` imports it, likewise."""
    importlib.import_module("models.images")


def pretext_experiment() -> None:
    """DKNN with the training images before the loss, as `mnist.py` passes them."""
    from lfxai.explanations.examples import NearestNeighbours

    model = nn.Module()
    model.encoder = nn.Flatten()
    NearestNeighbours(model, torch.rand(8, 1, 4, 4), nn.MSELoss()).attribute(torch.rand(4, 1, 4, 4), [0, 1])


def vae() -> None:
    """The VAEs' encoder, which calls `np.product`."""
    from lfxai.models.images import EncoderBurgess

    EncoderBurgess((1, 32, 32), 3)


def heartbeats() -> None:
    """ECG5000, whose loader calls `DataFrame.append`, with two files of one beat each."""
    from lfxai.utils.datasets import ECG5000

    with TemporaryDirectory() as folder:
        for part in ("TRAIN", "TEST"):
            (Path(folder) / f"ECG5000_{part}.arff").write_text(BEATS, encoding="utf-8")
        ECG5000(Path(folder))


PATHS = (dsprites_script, cifar10_script, pretext_experiment, vae, heartbeats)


def stops() -> dict[str, str]:
    """Return what each path stops on, in words; a path that runs through is left out."""
    found = {}
    for path in PATHS:
        try:
            path()
        except Exception as error:  # whatever it is, it stops a reader
            found[path.__name__] = f"{type(error).__name__}: {error}"
    return found


def main() -> None:
    """Print what stops, and record it if asked."""
    try:
        importlib.import_module("lfxai.models.images")
    except ImportError as error:
        print(f"lfxai is not at hand ({error}); pip install lfxai==0.1.1 to try it.")
        return
    found = stops()
    for path in PATHS:
        print(f"{path.__name__.replace('_', ' '):20} {found.get(path.__name__, 'runs')}")
    if "--record" in sys.argv:
        session = start("02_consistency_features", "paper")
        ledger.record(session, "ERR.13.runs-today", len(found), note="; ".join(found.values()))


if __name__ == "__main__":
    main()
