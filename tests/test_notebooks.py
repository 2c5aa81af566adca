"""Every notebook has the form that the book, Colab and papermill need, and runs alone, offline and from anywhere."""

import ast
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))
import folds  # noqa: E402
import regression  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EVERY = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
CLOSED = "http://127.0.0.1:9"  # nothing listens on the discard port: whoever asks the network fails at once


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


@EVERY
def test_kernel_is_called_python3(path):
    assert json.loads(path.read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"] == "python3"


@EVERY
def test_outputs_are_stripped(path):
    assert [cell for cell in cells(path, "code") if cell["outputs"] or cell["execution_count"] is not None] == []


@EVERY
def test_one_cell_holds_the_parameters(path):
    tagged = [cell for cell in cells(path, "code") if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    lines = ast.parse(source(tagged[0])).body
    assert all(isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name) for line in lines)
    assigned = {line.targets[0].id: ast.literal_eval(line.value) for line in lines}
    assert assigned["profile"] == "quick" and assigned["seed"] == 0


@EVERY
def test_a_chapter_opens_and_closes_as_promised(path):
    taught = [cell for cell in cells(path, "markdown") if "audit" not in cell["metadata"].get("tags", [])]
    text = "\n".join(map(source, taught))
    assert re.match(r"# Chapter \d+", text)
    opening = text[: text.index("**You will learn**")]
    assert "{glue:figure}" in opening or "<svg" in opening or "](../book/_static" in opening
    parts = ("You need", "## In short", "Works when", "ails when", "## Exercises")
    assert [part for part in parts if part not in text] == []
    assert text.count("{dropdown}") >= 3 and text.index("## In short") < text.index("## Exercises")


@EVERY
def test_a_chapter_shows_little_code_and_none_that_draws(path):
    everything = json.loads(path.read_text(encoding="utf-8"))["cells"]
    hidden = {"audit", "hide-input", "hide-cell", "remove-cell", "remove-input"}
    shown = [
        source(cell).strip()
        for cell, label in zip(everything, folds.labels(everything))
        if cell["cell_type"] == "code" and not label and not hidden & set(cell["metadata"].get("tags", []))
    ]
    assert sum(1 + code.count("\n") for code in shown) <= 130
    assert [code for code in shown if folds.DRAWS.search(code)] == []


@EVERY
def test_setup_for_colab_comes_first(path):
    first = cells(path, "code")[0]
    assert "colab" in source(first).lower() and "# !" not in source(first)
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert f'repository = "{address}"' in source(first) and "    !git clone" in source(first)
    assert "parameters" not in first["metadata"].get("tags", [])


@EVERY
def test_cells_are_short(path):
    long = [source(cell) for cell in cells(path, "code") if len(source(cell).splitlines()) > 25]
    assert long == []


@EVERY
def test_what_is_made_to_be_shown_is_shown(path):
    """A cell shows its last expression; a table or a player that is made before it, and by itself, is lost."""
    lost = []
    for cell in cells(path, "code"):
        plain = re.sub(r"^[ \t]*[!%].*$", "", source(cell), flags=re.MULTILINE)
        calls = [ast.unparse(node.value) for node in ast.parse(plain).body[:-1] if isinstance(node, ast.Expr)]
        lost += [call for call in calls if call.startswith(("plots.table(", "viewer."))]
    assert lost == []


@EVERY
def test_pictures_in_the_text_have_words(path):
    text = "\n".join(source(cell) for cell in cells(path, "markdown"))
    assert re.findall(r"!\[\s*\]\(.*", text) == []
    assert [tag for tag in re.findall(r"<img[^>]*>", text) if not re.search(r'alt="[^"]+"', tag)] == []
    blocks = re.findall(r"^(`{3,}|:{3,})\{((?:glue:)?figure|image)\}(.*?)^\1$", text, re.MULTILINE | re.DOTALL)
    assert [body for _, _, body in blocks if not re.search(r"^:alt: *\S|^alt: *\S", body, re.MULTILINE)] == []


def wordless(executed: Path) -> list[str]:
    """Return the cells that show a picture and do not say in words what it shows."""
    return [
        source(cell)
        for cell in cells(executed, "code")
        if any("image/png" in output.get("data", {}) for output in cell["outputs"])
        and not cell["metadata"].get("mystnb", {}).get("image", {}).get("alt")
    ]


def run(path: Path, folder: Path) -> tuple[Path, list[dict]]:
    """Execute at `smoke` in `folder`, with no network and no real data; return the executed copy and its records."""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), CLOSED)
    environment |= {"LFX_OUT": str(folder / "out"), "LFX_THREADS": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1", "LFX_DATA": str(folder / "none")}
    command = [sys.executable, "-m", "papermill", str(path), str(folder / path.name), "--no-progress-bar"]
    command += ["--kernel", "python3", "-p", "profile", "smoke", "-p", "seed", "1"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    records = folder / "out" / "smoke" / f"{path.stem}.json"  # a chapter without claims writes none
    return folder / path.name, json.loads(records.read_text(encoding="utf-8")) if records.exists() else []


@pytest.mark.long
@EVERY
def test_runs_alone_offline_and_from_anywhere(path, tmp_path):
    (tmp_path / "one").mkdir()
    executed, records = run(path, tmp_path / "one")
    with (ROOT / "data" / "published" / "claims.csv").open(newline="", encoding="utf-8") as file:
        claims = [row for row in csv.DictReader(file) if row["page"] == path.stem]
    of_this_page = {row["id"] for row in claims if row["kind"] != "table" and not row["why"]}
    recorded = {row["id"] for row in records}
    assert (of_this_page - recorded, recorded - of_this_page) == (set(), set())  # (forgotten, of another page)
    assert {(row["profile"], row["seed"]) for row in records} <= {("smoke", 1)}
    assert wordless(executed) == []
    assert regression.outside(records) == []

    durations = [cell["metadata"]["papermill"]["duration"] for cell in cells(executed, "code")]
    assert sum(durations[1:]) < 300  # the budget is 20 s after the imports; a busy machine gets fifteen times that

    if path == NOTEBOOKS[0]:
        (tmp_path / "two").mkdir()
        _, again = run(path, tmp_path / "two")
        numbers = [[(row["id"], row["value"], row["low"], row["high"]) for row in run] for run in (records, again)]
        assert numbers[0] == numbers[1]
