"""A Sphinx extension: the [source] of a documented object leads to its lines in the public repository."""

import importlib
import inspect
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]


def address(domain: str, info: dict[str, str]) -> str | None:
    """Return where an object's code stands, or None for what has no lines of its own, such as a field."""
    if domain != "py" or not info["module"]:
        return None
    found = importlib.import_module(info["module"])
    try:
        for name in info["fullname"].split("."):
            found = getattr(found, name)
        found = inspect.unwrap(found)
        file = Path(inspect.getsourcefile(found)).resolve().relative_to(ROOT)
        lines, start = inspect.getsourcelines(found)
    except (AttributeError, TypeError, ValueError, OSError):
        return None
    return f"{REPOSITORY['url']}/blob/{REPOSITORY['branch']}/{file.as_posix()}#L{start}-L{start + len(lines) - 1}"


def setup(app) -> dict[str, bool]:
    """Let Sphinx's own extension ask `address`."""
    app.setup_extension("sphinx.ext.linkcode")
    app.config.linkcode_resolve = address
    return {"parallel_read_safe": True, "parallel_write_safe": True}
