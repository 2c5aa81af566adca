"""The files of the data sets: where they lie, whether they are sound, and how they are fetched."""

import hashlib
import os
import tempfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar
from xml.etree.ElementTree import ParseError

import numpy as np


class Unavailable(OSError):
    """The files of a data set are missing or not sound, or their download failed."""


PAUSE = 1.0  # seconds before the second attempt at a download; twice that before the third

# What reading a damaged file, or a download, may end in.
FAULTS = (
    OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, EOFError, zipfile.BadZipFile, zlib.error,
    ParseError,
)  # fmt: skip
T = TypeVar("T")


def data_root(root: str | os.PathLike | None = None) -> Path:
    """Return the folder that holds the data: `root`, else `$LFX_DATA`, else a cache folder of the user's.

    Raises:
        Unavailable: none is named, and the user has no home folder.

    >>> data_root("somewhere").name
    'somewhere'
    """
    named = root or os.environ.get("LFX_DATA") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lfx"
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise Unavailable(f"{named} cannot be found, as there is no home folder; name another in LFX_DATA") from error


@contextmanager
def sound(what, fault: str = "is damaged") -> Iterator[None]:
    """Turn whatever reading `what` may end in into `Unavailable`, with the true reason.

    Args:
        what: a file or a data set, for the message.
        fault: what is wrong with it unless a file is missing, or may not be read.
    """
    try:
        yield
    except Unavailable:
        raise
    except FileNotFoundError as error:
        raise Unavailable(f"{error.filename or what} is missing") from error
    except PermissionError as error:
        raise Unavailable(f"{error.filename or what} may not be read or written ({error.strerror})") from error
    except FAULTS as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else error
        raise Unavailable(f"{what} {fault} ({reason})") from error


def present(path: Path) -> bool:
    """Say whether a file or folder is there. Unlike `Path.exists`, a folder that may not be entered is no absence.

    Raises:
        PermissionError: a folder above it may not be entered.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def first_sound(readers: Iterable[tuple[Path, Callable[[Path], T]]], missing: str) -> T:
    """Return what the first of several copies holds that is there and sound, so that a damaged one hides no other.

    Args:
        readers: pairs of a copy's place and the function that reads it; it may raise `Unavailable`.
        missing: what to say where there is none.

    Raises:
        Unavailable: none is there, or none is sound; it gives the reason for each.
    """
    reasons = []
    for place, read in readers:
        try:
            with sound(place):
                there = present(place)
            if there:
                return read(place)
        except Unavailable as error:
            reasons.append(str(error))
    raise Unavailable("; ".join(reasons) or missing)


def check(arrays: Iterable[np.ndarray], sha256: str, source) -> None:
    """Compare the checksum of the arrays' values, one after the other, with the known one.

    Raises:
        Unavailable: they differ.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    if digest.hexdigest() != sha256:
        raise Unavailable(f"{source} does not hold the known values (their SHA-256 differs)")


def fetch(address: str, attempts: int = 3, timeout: float = 30) -> bytes:
    """Download one file into memory, with a growing pause between attempts.

    Raises:
        Unavailable: every attempt failed.
    """
    for attempt in range(attempts):
        time.sleep(PAUSE * attempt)
        try:
            with urllib.request.urlopen(address, timeout=timeout) as answer:
                return answer.read()
        except (OSError, HTTPException) as error:
            reason = error
    raise Unavailable(f"{address} could not be downloaded in {attempts} attempts ({reason})")


def store(path: Path, **arrays: np.ndarray) -> None:
    """Write the arrays as a compressed `.npz`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        np.savez_compressed(draft, **arrays)
        os.replace(draft, path)
