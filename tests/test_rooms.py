"""The package's rooms: each imports only from rooms below it, and no two files import each other in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "lfx_utils"
ROOMS = (
    "checks", "progress", "datasets", "models", "training", "examples", "measures", "relax", "features", "encoders",
    "nemu", "chapters",
)  # fmt: skip  # from the lowest to the highest


def imported(path: Path) -> set[Path]:
    """Return the files of the package that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "lfx_utils":
            continue
        source = PACKAGE.joinpath(*node.module.split(".")[1:])
        for alias in node.names:  # a submodule, or a name in the module itself
            own = source / f"{alias.name}.py", source / alias.name / "__init__.py"
            places = *own, source.with_suffix(".py"), source / "__init__.py"
            found.add(next(place for place in places if place.is_file()))
    return found - {path}


FILES = {path: imported(path) for path in sorted(PACKAGE.rglob("*.py"))}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_room_has_its_place():
    assert {room(path) for path in FILES} == {*ROOMS, "__init__"}


def test_no_file_imports_from_a_room_above_it():
    height = {name: place for place, name in enumerate(ROOMS)} | {"__init__": len(ROOMS)}
    upward = [
        f"{path.relative_to(PACKAGE)} imports {other.relative_to(PACKAGE)}"
        for path, others in FILES.items()
        for other in others
        if height[room(other)] > height[room(path)] and other != PACKAGE / "__init__.py"
    ]
    assert upward == []


def test_no_file_imports_itself_through_others():
    tuple(TopologicalSorter(FILES).static_order())  # raises CycleError
