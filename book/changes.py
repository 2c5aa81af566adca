"""What a chapter's numbers depend on, as one hash: only what changed is executed again."""

import ast
import hashlib
import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

PACKAGE = "lfx_utils"
VERSIONS = (
    "torch", "torchvision", "captum", "numpy", "scipy", "scikit-learn", "scikit-image", "quantus", "prodigyopt",
    "transformers",
)  # fmt: skip
DATA = ("data/published", "data/results", "data/checkpoints")


def versions() -> dict[str, str]:
    """Return the versions that can change a number; `"none"` where a package is missing."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def imported(source: str, module: str, is_package: bool) -> set[str]:
    """Return the dotted names that a module's source may import from `lfx_utils`, itself included.

    `from lfx_utils import plots` may mean a submodule or a name: both readings are returned, and whoever
    looks for the files drops those that do not exist.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join(parents + [base] if base else parents)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == PACKAGE}


def modules(source: str, root: Path) -> list[Path]:
    """Return the files of `lfx_utils` that `source` imports, directly or through one another, sorted."""
    seen: dict[str, Path] = {}
    waiting = imported(source, "", False)
    while waiting:
        name = waiting.pop()
        parts = name.split(".")
        waiting |= {".".join(parts[:n]) for n in range(1, len(parts))} - seen.keys()  # importing a.b runs a
        path = root.joinpath(*parts)
        path, is_package = (path / "__init__.py", True) if path.is_dir() else (path.with_suffix(".py"), False)
        if name not in seen and path.is_file():
            seen[name] = path
            waiting |= imported(path.read_text(encoding="utf-8"), name, is_package) - seen.keys()
    return sorted(seen.values())


def code(notebook: dict) -> str:
    """Return the notebook's code as one Python source, magics translated."""
    transform = TransformerManager().transform_cell
    return "\n".join(transform("".join(cell["source"])) for cell in notebook["cells"] if cell["cell_type"] == "code")


def digest(paths: Iterable[Path], root: Path) -> str:
    """Hash the names (relative to `root`) and contents of files; folders are read whole."""
    total = hashlib.sha256()
    for path in sorted(paths):
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                total.update(f"{file.relative_to(root).as_posix()}\n".encode())
                total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def data_root() -> str:
    """Describe the folder of real data: where it is, and the names and sizes of what lies near its top."""
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "lfx")
    place = Path(os.path.expanduser(os.environ.get("LFX_DATA") or cache))  # which needs no home folder
    files = sorted(file for depth in ("*", "*/*") for file in place.glob(depth) if file.is_file())
    return json.dumps([str(place), *([str(file), file.stat().st_size] for file in files)])


def key(
    notebook: dict, root: Path, profile: str, seed: int, records: Iterable[Path] = (), data: Iterable[str] = DATA
) -> str:
    """Return the sha256 of everything that can change the notebook's outputs; prose can where the book is the data.

    Args:
        notebook: parsed `.ipynb`.
        root: the repository.
        profile, seed: the parameters it runs with.
        records: files that it reads besides.
        data: folders of the repository that it reads.
    """
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    source = code(notebook)
    files = modules(source, root)
    if root / PACKAGE / "encoders" / "shipped.py" not in files:
        data = [folder for folder in data if folder != "data/checkpoints"]  # only encoders lie there
    parts = {
        "cells": [["".join(cell["source"]), "parameters" in cell["metadata"].get("tags", [])] for cell in cells],
        "modules": digest(files, root),
        "data": digest((root / folder for folder in data), root),
        "real data": data_root(),
        "run": [profile, seed],
        "versions": versions(),
        "records": [digest([path], path.parent) for path in sorted(records)],
    }
    if root / PACKAGE / "chapters" / "corpus.py" in files:
        parts["corpus"] = digest([*root.glob("book/*.md"), *root.glob("notebooks/*.ipynb")], root)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
