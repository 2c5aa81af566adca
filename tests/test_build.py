"""The machinery of `make book`, tried on a copy of it with notebooks of one line."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SETUP, PARAMETERS = "import os, time, pathlib", "profile = 'quick'\nseed = 0"


def load(name: str):
    """Import a module of `book/`, which is a folder of scripts and no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


changes = load("changes")


def notebook(*code: str) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_markdown_cell("# A title"), nbformat.v4.new_code_cell(PARAMETERS)]
    cells[1].metadata["tags"] = ["parameters"]
    cells += [nbformat.v4.new_code_cell(source) for source in (SETUP, *code)]
    kernel = {"name": "python3", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def succeeds(copy: Path) -> None:
    made = build(copy)
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.fixture
def copy(tmp_path):
    """A repository with the real machinery, a package of three one-line modules and no chapter yet."""
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("*.md", "__pycache__", "_static"))
    package = tmp_path / "lfx_utils"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "used.py").write_text("from .deep import below\n", encoding="utf-8")
    (package / "deep" / "__init__.py").write_text("from . import below\n", encoding="utf-8")
    (package / "deep" / "below.py").write_text("VALUE = 1\n", encoding="utf-8")
    (package / "other.py").write_text("VALUE = 2\n", encoding="utf-8")
    shutil.copytree(ROOT / "data" / "published", tmp_path / "data" / "published")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def add(root: Path, **chapters: nbformat.NotebookNode) -> None:
    for name, content in chapters.items():
        nbformat.write(content, root / "notebooks" / f"{name}.ipynb")
    entries = [{"file": f"notebooks/{name}"} for name in chapters]
    toc = {"format": "jb-book", "root": "book/index", "parts": [{"caption": "Part", "chapters": entries}]}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")


def command(root: Path, *options: str) -> list[str]:
    return [sys.executable, str(root / "book" / "build.py"), "--no-html", "--jobs", "2", *options]


def build(root: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(root, *options), capture_output=True, text=True, timeout=120)


def executed(root: Path, name: str) -> Path:
    return root / "_build" / "notebooks" / "quick" / f"{name}.ipynb"


def ends(pid: int) -> bool:
    """Say whether a process is gone within five seconds; one that only waits to be buried is."""
    for _ in range(50):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def key(root: Path, content: nbformat.NotebookNode, profile: str = "quick", seed: int = 0) -> str:
    return changes.key(json.loads(nbformat.writes(content)), root, profile, seed)


@pytest.mark.parametrize(
    "line", ["from lfx_utils import used", "import lfx_utils.used as u", "from lfx_utils.used import below"]
)
def test_key_follows_what_is_imported(copy, line):
    content = notebook(line)
    before = key(copy, content)
    (copy / "lfx_utils" / "other.py").write_text("VALUE = 3\n", encoding="utf-8")
    assert key(copy, content) == before
    (copy / "lfx_utils" / "deep" / "below.py").write_text("VALUE = 3\n", encoding="utf-8")
    assert key(copy, content) != before


def test_key_follows_code_data_profile_and_seed_but_not_prose(copy, monkeypatch):
    monkeypatch.delenv("LFX_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(copy / "cache"))
    before = key(copy, notebook("%matplotlib inline\nx = 1"))
    prose = notebook("%matplotlib inline\nx = 1")
    prose.cells[0].source = "# Another title"
    assert key(copy, prose) == before
    others = {
        key(copy, notebook("%matplotlib inline\nx = 2")),
        key(copy, notebook("%matplotlib inline\nx = 1"), profile="paper"),
        key(copy, notebook("%matplotlib inline\nx = 1"), seed=1),
    }
    (copy / "data" / "published" / "claims.csv").write_text("id\n", encoding="utf-8")
    others.add(key(copy, notebook("%matplotlib inline\nx = 1")))
    (copy / "real").mkdir()
    monkeypatch.setenv("LFX_DATA", str(copy / "real"))
    others.add(key(copy, notebook("%matplotlib inline\nx = 1")))
    assert before not in others and len(others) == 5


def test_key_follows_the_prose_of_the_book_where_that_is_the_data(copy):
    package = copy / "lfx_utils" / "chapters"
    package.mkdir()
    for file in ("__init__.py", "corpus.py"):
        (package / file).write_text("", encoding="utf-8")
    searches, computes = notebook("from lfx_utils.chapters import corpus"), notebook("import lfx_utils.chapters")
    before = key(copy, searches), key(copy, computes)
    (copy / "book" / "page.md").write_text("Another sentence.", encoding="utf-8")
    assert key(copy, searches) != before[0] and key(copy, computes) == before[1]


@pytest.mark.long
def test_one_failure_stops_nobody_and_is_told(copy):
    add(copy, a_bad=notebook("raise ValueError('the reason why')"), b_good=notebook("print('fine')"))
    first = build(copy)
    assert first.returncode == 1
    assert all(part in first.stdout for part in ("ValueError: the reason why", "a_bad", "No book was made"))
    assert executed(copy, "b_good").is_file() and executed(copy, "a_bad.failed").is_file()
    assert not executed(copy, "a_bad").exists()

    made = executed(copy, "b_good").stat().st_mtime_ns
    add(copy, a_bad=notebook("print('mended')"), b_good=notebook("print('fine')"))
    second = build(copy)
    assert second.returncode == 0, second.stdout + second.stderr
    assert executed(copy, "b_good").stat().st_mtime_ns == made and not executed(copy, "a_bad.failed").exists()
    times = (copy / "_build" / "results" / "quick" / "times.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in times] == ["chapter", "a_bad", "b_good"]


@pytest.mark.long
def test_an_interrupted_build_leaves_nobody_behind_and_resumes(copy):
    slow = notebook("pathlib.Path(os.environ['LFX_OUT'], 'pid').write_text(str(os.getpid()))", "time.sleep(60)")
    add(copy, a_slow=slow, b_fast=notebook("print('fine')"))
    process = subprocess.Popen(command(copy), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    noted, stamp = copy / "_build" / "results" / "pid", executed(copy, "b_fast").with_suffix(".json")
    (copy / "_build" / "results").mkdir(parents=True)
    until = time.monotonic() + 60
    while not (noted.is_file() and noted.read_text(encoding="utf-8") and stamp.is_file()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode not in (0, None) and "resumes" in said and "Traceback" not in said
    assert ends(int(noted.read_text(encoding="utf-8")))
    assert not executed(copy, "a_slow").exists() and not executed(copy, "a_slow.failed").exists()

    made = executed(copy, "b_fast").stat().st_mtime_ns
    add(copy, a_slow=notebook("print('quick now')"), b_fast=notebook("print('fine')"))
    again = build(copy)
    assert again.returncode == 0 and "Executing 1 of 2" in again.stdout
    assert executed(copy, "b_fast").stat().st_mtime_ns == made


@pytest.mark.long
def test_the_book_is_whole_or_the_former_one(copy):
    for name in ("_config.yml", "book/references.bib", "book/_static"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    index = copy / "book" / "index.md"
    index.write_text("# Welcome\n\nSee {cite:t}`crabbe2022label`.\n\n```{bibliography}\n```\n", encoding="utf-8")
    chapter = notebook("from myst_nb import glue", "glue('answer', 40 + 2, display=False)")
    evidence = nbformat.v4.new_markdown_cell("## Evidence\n\nIt is {glue:}`answer`.", metadata={"tags": ["audit"]})
    chapter.cells.append(evidence)
    add(copy, a=chapter)
    whole = [part for part in command(copy) if part != "--no-html"]
    first = subprocess.run(whole, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    page = copy / "_build" / "html" / "book" / "index.html"
    assert "Welcome" in page.read_text(encoding="utf-8") and str(page.parents[1] / "index.html") in first.stdout
    assert "It is 42." in re.sub(
        "<[^>]+>", "", (page.parents[1] / "notebooks" / "a_audit.html").read_text(encoding="utf-8")
    )
    made = page.stat().st_mtime_ns

    again = subprocess.run(whole, capture_output=True, text=True)
    assert again.returncode == 0 and "Typesetting" not in again.stdout and page.stat().st_mtime_ns == made

    index.write_text("# Welcome\n\nSee [a page](nowhere.md).\n", encoding="utf-8")
    broken = subprocess.run(whole, capture_output=True, text=True)
    assert broken.returncode == 1 and "nowhere.md" in broken.stdout and "WARNING" in broken.stdout
    assert page.stat().st_mtime_ns == made


def test_a_page_shows_todays_text_with_the_kept_outputs(copy, monkeypatch):
    add(copy, a=notebook("print(6 * 7)"))
    succeeds(copy)
    rewritten = notebook("print(6 * 7)")
    rewritten.cells[0].source = "# A better title"
    add(copy, a=rewritten)
    script = "import json, chapter; print(chapter.Chapter('a', 'quick', 0).page())"
    environment = os.environ | {"PYTHONPATH": str(copy / "book")}
    shown = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True)
    page = json.loads(shown.stdout)
    assert page["cells"][0]["source"] == ["# A better title"]
    assert [out["text"] for cell in page["cells"] for out in cell.get("outputs", [])] == [["42\n"]]
    assert "profile `quick`, seed 0" in page["cells"][-1]["source"]
    assert len(page["cells"]) == len(rewritten.cells) + 1


def test_a_kernel_that_did_not_start_is_started_again(copy, monkeypatch):
    spec = copy / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    starter = spec / "starter.py"
    starter.write_text(
        "import pathlib, runpy\nseen = pathlib.Path(__file__).with_suffix('.seen')\nif not seen.exists():\n"
        "    seen.touch()\n    raise SystemExit(1)\nrunpy.run_module('ipykernel_launcher', run_name='__main__')\n",
        encoding="utf-8",
    )
    about = {
        "argv": [sys.executable, str(starter), "-f", "{connection_file}"],
        "display_name": "x",
        "language": "python",
    }
    (spec / "kernel.json").write_text(json.dumps(about), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(copy / "jupyter"))
    add(copy, a=notebook("print(1)"))
    succeeds(copy)
    assert starter.with_suffix(".seen").exists()


RECORD = """folder = pathlib.Path(os.environ['LFX_OUT'], profile)
folder.mkdir(parents=True, exist_ok=True)
(folder / '{}.json').write_text('[{{"id": "{}", "cell": 3}}]')"""


@pytest.mark.long
def test_a_chapter_that_gathers_comes_last_and_again_when_a_record_changed(copy):
    reader = notebook("print(len(list(pathlib.Path(os.environ['LFX_OUT'], profile).glob('*.json'))))")
    reader.metadata["lfx"] = {"gathers": True}
    others = [notebook(RECORD.format(name, "claim"), "time.sleep(1)") for name in "bc"]
    add(copy, a=reader, b=others[0], c=others[1])
    succeeds(copy)

    def counted() -> list[str]:
        return [out["text"] for cell in nbformat.read(executed(copy, "a"), 4).cells for out in cell.get("outputs", [])]

    assert counted() == ["2\n"]
    assert "Executing" not in build(copy).stdout
    add(copy, a=reader, b=others[0], c=notebook(RECORD.format("c", "another")))
    again = build(copy).stdout
    assert again.count("Executing 1 of 3") == 2


def test_a_page_marks_the_cells_that_recorded_a_claim(copy):
    add(copy, a=notebook("print(1)", RECORD.format("a", "claim")))
    succeeds(copy)
    script = "import chapter; print(chapter.Chapter('a', 'quick', 0).page())"
    environment = os.environ | {"PYTHONPATH": str(copy / "book")}
    shown = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True)
    cells = json.loads(shown.stdout)["cells"]
    marks = [number for number, cell in enumerate(cells) if 'id="cell-3"' in cell["source"]]
    assert len(marks) == 1 and cells[marks[0] + 1]["execution_count"] == 3


def test_an_erratum_shows_its_numbers_and_where_they_were_computed(copy):
    record = RECORD.replace('"cell": 3', '"cell": 3, "value": 2.5, "low": 2, "high": 3, "chapter": "a"')
    add(copy, a=notebook(record.format("a", "ERR.2.masks-needed")))
    succeeds(copy)
    script = "import build, generated; print(generated.errata([build.Chapter('a', 'quick', 0)])['erratum-2'])"
    environment = os.environ | {"PYTHONPATH": str(copy / "book")}
    shown = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
    lines = [line for line in shown.splitlines() if line.startswith("- ")]
    assert len(lines) == 3 and sum("not computed in this build" in line for line in lines) == 2
    assert '**2.5** [2, 3] (<a href="../notebooks/a.html#cell-3">the cell</a>)' in lines[0]


def test_cells_that_only_present_are_folded_and_ideas_are_not():
    sys.path.insert(0, str(ROOT / "book"))
    from folds import purpose

    figure = {"mystnb": {"figure": {"name": "fig-a", "caption": "Two **maps**: left, right"}}}
    folded = ["import torch", "rows = {}\nplots.table(rows)", "glue('n', 1)", "for x in y:\n    ledger.record(s, x, 1)"]
    folded += ["def panel(ax):\n    ax.imshow(x)", "axes[0].set(x=1)\nfig.tight_layout()"]
    assert all(purpose(source, {}) for source in folded) and purpose("def draw(): ...", figure) == "draw “Two maps”"
    figure["mystnb"]["figure"]["caption"] = "Digits: two maps; left, right"
    assert purpose("def draw(): ...", figure) == "draw “Digits: two maps”"
    shown = ["profile = 1", "maps = f(x)", "def f(x):\n    return x", "def f(x):\n    return x\n\nglue('n', f(1))"]
    assert not any(purpose(source, {}) for source in shown)
    assert purpose("import torch", {"tags": ["teaches"]}) == ""


def test_no_two_folds_of_a_page_have_the_same_label():
    sys.path.insert(0, str(ROOT / "book"))
    from folds import labels

    def cell(source, kind="code"):
        return {"cell_type": kind, "source": source, "metadata": {}}

    page = [cell("import torch"), cell("# A title\n\n## One", "markdown"), cell("glue('a', 1)"), cell("y = f(x)")]
    page += [cell("glue('b', 2)"), cell("## Two", "markdown"), cell("glue('c', 3)")]
    page.append(cell("y = f(x)") | {"metadata": {"tags": ["hide-input"]}})
    page.append(cell("glue('d', 4)") | {"metadata": {"mystnb": {"code_prompt_show": "Solution 1"}}})
    assert labels(page) == [
        "Code: imports and set-up", "", "Code: put the numbers into the text (One)", "",
        "Code: put the numbers into the text (One), 2", "", "Code: put the numbers into the text (Two)",
        "Code: compute", "Solution 1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--profile", "fast"], "profile must be one of smoke, quick, paper, got 'fast'."),
        (["--seed", "-1"], "seed must be a non-negative integer, got -1."),
        (["--jobs", "0"], "jobs must be at least 1, got 0."),
        (["--only", "99_*"], "--only 99_* matches no chapter; there are a."),
    ],
)
def test_bad_options_end_in_one_sentence(copy, options, said):
    add(copy, a=notebook())
    wrong = build(copy, *options)
    assert wrong.returncode == 1 and wrong.stderr.strip() == said and not (copy / "_build").exists()


def test_a_missing_chapter_ends_in_one_sentence(copy):
    add(copy, a=notebook())
    (copy / "notebooks" / "a.ipynb").unlink()
    wrong = build(copy)
    assert wrong.returncode == 1
    assert wrong.stderr.strip() == "_toc.yml names the chapter notebooks/a, but there is no notebooks/a.ipynb."
