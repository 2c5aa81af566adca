"""ECG5000 of the UCR archive: 5,000 beats of one patient with congestive heart failure."""

import io
import zipfile
from pathlib import Path

import numpy as np

from .base import Dataset
from .files import FAULTS, Unavailable, check, data_root, fetch, first_sound, sound, store
from .heartbeats import STEPS, divide

STAND_IN = "heartbeats"
FILES = ("ECG5000_TRAIN.txt", "ECG5000_TEST.txt")
# Of the values as little-endian float32 and the labels as int64, training file first: not of a file, since mirrors
# carry the same numbers with other separators and line ends.
SHA256 = "8806227a9479f4e885b1e0e69427ff99da34ce99b5033986874ac6554dfdaff5"
# Tried in turn: one archive, or the training and the test file.
SOURCES = (
    ("https://www.timeseriesclassification.com/aeon-toolkit/ECG5000.zip",),
    tuple(
        "https://raw.githubusercontent.com/HFuoc/ECG5000-Anomaly/"
        f"08e87f85b8fd837cede8e5c18f9bfbad07372ef4/data/raw/{file}"
        for file in FILES
    ),
    tuple(
        f"https://raw.githubusercontent.com/tejaslodaya/timeseries-clustering-vae/master/data/ECG5000/{file[:-4]}"
        for file in FILES
    ),
)


def load(train=None, test=None, seed=0, root=None, download=False, split="normal") -> Dataset:
    """Load ECG5000 from `<root>/ecg5000`; the baseline is the mean normal training beat.

    Read from `ecg5000.npz` (arrays X `(5000, 140)`, y 1–5) or from the archive's `ECG5000_TRAIN.txt` and
    `ECG5000_TEST.txt`, the first that is sound; a download is stored as the former.

    Args:
        train: how many training beats, None for all.
        test: how many test beats, None for all.
        seed: of the draw and of the random split.
        root: the data root, see `data_root`.
        download: fetch what is missing.
        split: `"normal"` trains on normal beats and tests on abnormal ones (LF's feature importance), `"random"`
            divides all 80/20 (LF's example importance); the archive's own split is not used.

    Returns:
        sequences `(N, 140, 1)`, each of mean 0 and variance 1; labels 0–4, where 0 is normal (the papers use only
        normal against the rest).

    Raises:
        Unavailable: the files are missing or not sound, or the download failed.
        ValueError: an unknown split.

    Source: Dau et al. (2018), The UCR Time Series Archive; Goldberger et al. (2000), PhysioNet, BIDMC Congestive Heart
    Failure Database, record chf07; splits and baseline from LF, App. C.1.
    """
    folder = data_root(root) / "ecg5000"
    try:
        beats, labels = _read(folder)
    except Unavailable:
        if not download:
            raise
        beats, labels = _download()
        with sound(f"the download to {folder}", "cannot be kept"):
            store(folder / "ecg5000.npz", X=beats, y=labels)
    return divide(
        "ecg5000", beats, labels - 1, (train, test), seed, split,
        provenance=f"ECG5000 of the UCR archive, SHA-256 of its values {SHA256[:8]}….",
    )  # fmt: skip


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    stored = folder / "ecg5000.npz"
    return first_sound([(stored, _read_stored), (folder / FILES[0], _read_texts)], f"there is no {stored}")


def _read_stored(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with sound(path):
        with np.load(path) as arrays:
            beats, labels = arrays["X"].astype("<f4"), arrays["y"].astype("<i8")
        check((beats, labels), SHA256, path)
    return beats, labels


def _read_texts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with sound(f"ECG5000 in {path.parent}"):
        return parse([(path.parent / file).read_bytes() for file in FILES], path.parent)


def parse(texts: list[bytes], source) -> tuple[np.ndarray, np.ndarray]:
    """Read the training and the test file: a row a beat, its label first, between blanks or commas.

    Args:
        texts: the two files.
        source: where they come from, for the message.

    Returns:
        beats `(5000, 140)` float32 and labels `(5000,)` int64, 1–5.

    Raises:
        Unavailable: they are not ECG5000's.
    """
    values = np.array(b" ".join(texts).replace(b",", b" ").split(), float)
    if values.size % (STEPS + 1):
        raise Unavailable(f"{source} does not hold rows of {STEPS + 1} numbers")
    rows = values.reshape(-1, STEPS + 1)
    beats, labels = rows[:, 1:].astype("<f4"), rows[:, 0].astype("<i8")
    check((beats, labels), SHA256, source)
    return beats, labels


def _download() -> tuple[np.ndarray, np.ndarray]:
    failures = []
    for addresses in SOURCES:
        try:
            texts = [fetch(address) for address in addresses]
            if len(texts) == 1:
                with zipfile.ZipFile(io.BytesIO(texts[0])) as archive:
                    texts = [archive.read(file) for file in FILES]
            return parse(texts, addresses[0])
        except FAULTS as error:
            failures.append(str(error))
    raise Unavailable("no source gave ECG5000: " + "; ".join(failures))
