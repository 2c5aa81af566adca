"""The sweep over the papers' settings, tried with notebooks of a few lines: a failure, a kill, and a resumption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
START = "from lfx_utils.chapters import ledger, start\nsession = start(chapter, profile, seed)"
CLAIM = "RX.T1.relax-above-u-relax"


def notebook(chapter: str, *code: str) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(f"chapter = '{chapter}'\nprofile = 'quick'\nseed = 0\nwait = 0")]
    cells[0].metadata["tags"] = ["parameters"]
    cells += [nbformat.v4.new_code_cell(source) for source in (START, *code)]
    kernel = {"name": "python3", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture
def sweep(tmp_path):
    """A repository with the real workflow and package, and three small chapters: good, bad and slow."""
    left = shutil.ignore_patterns("__pycache__", "_static")
    for name in ("book", "workflow", "lfx_utils"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left)
    shutil.copytree(ROOT / "data" / "published", tmp_path / "data" / "published")
    (tmp_path / "notebooks").mkdir()
    noted = "with (session.out / 'starts').open('a') as file:\n    file.write('x')"
    chapters = {
        "good": notebook("good", noted, f"ledger.record(session, {CLAIM!r}, (1.0 + seed, 0.5 + seed, 1.5 + seed))"),
        "bad": notebook("bad", "raise ValueError('the reason why')"),
        "slow": notebook("slow", noted, "import time\ntime.sleep(wait)", f"ledger.record(session, {CLAIM!r}, 1.0)"),
    }
    for name, content in chapters.items():
        nbformat.write(content, tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


def command(root: Path, chapters: dict, seeds=(0, 1)) -> list[str]:
    settings = {"profile": "smoke", "seeds": list(seeds), "threads": 1, "gpus": 0, "out": "out", "chapters": chapters}
    (root / "workflow" / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    asked = (
        (ROOT / "Makefile")
        .read_text(encoding="utf-8")
        .split("-m snakemake ")[1]
        .split("$(SWEEP)")[0]
        .replace("\\\n", " ")
    )
    return [sys.executable, "-m", "snakemake", *asked.replace("--cores all", "--cores 2").split()]


def starts(root: Path, chapter: str, seed: int) -> int:
    path = root / "out" / "runs" / chapter / "all" / str(seed) / "smoke" / "starts"
    return len(path.read_text(encoding="utf-8")) if path.exists() else 0


@pytest.mark.long
def test_a_sweep_survives_a_failure_and_a_kill(sweep):
    asked = command(sweep, {"good": {"all": {}}, "slow": {"all": {"wait": 60}}}, seeds=(0,))
    process = subprocess.Popen(asked, cwd=sweep, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    records = sweep / "out" / "records"
    running = sweep / ".snakemake" / "incomplete"  # one file for each job that has begun and not been checked off
    good = records / "good/all/0.json"
    while not (starts(sweep, "slow", 0) and good.exists() and len(list(running.glob("*"))) == 1):
        assert process.poll() is None
        time.sleep(0.1)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:  # as when the machine goes away: nobody is asked
        if member.is_running():
            os.kill(member.pid, signal.SIGKILL)
    process.wait()
    assert starts(sweep, "good", 0) == starts(sweep, "slow", 0) == 1
    assert not (records / "slow/all/0.json").exists()

    asked = command(sweep, {"good": {"all": {}}, "slow": {"all": {"wait": 0}}, "bad": {"all": {}}})
    again = subprocess.run(asked, cwd=sweep, capture_output=True, text=True, timeout=300)
    assert again.returncode != 0 and "the reason why" in (sweep / "out/logs/bad/all/0.log").read_text(encoding="utf-8")
    assert [starts(sweep, "good", seed) for seed in (0, 1)] == [1, 1]  # the finished one was not made again
    assert [starts(sweep, "slow", seed) for seed in (0, 1)] == [2, 1]
    table = pd.read_csv(sweep / "out" / "partial.csv").set_index("chapter")
    assert table.loc["good", ["value", "runs"]].tolist() == [1.5, 2]  # the mean of 1 and 2
    assert table.loc["good", "verdict"] == "open"  # two seeds tell little
    (record,) = json.loads((records / "slow/all/0.json").read_text(encoding="utf-8"))
    assert record["command"] == "papermill notebooks/slow.ipynb out.ipynb -p wait 0 -p profile smoke -p seed 0"

    asked = command(sweep, {"good": {"all": {}}, "slow": {"all": {"wait": 0}}})
    whole = subprocess.run(asked, cwd=sweep, capture_output=True, text=True, timeout=300)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert len(pd.read_csv(sweep / "out" / "sweep.csv")) == 2 and starts(sweep, "good", 0) == 1


def test_every_chapter_and_parameter_of_the_sweep_exists():
    chapters = yaml.safe_load((ROOT / "workflow" / "config.yaml").read_text(encoding="utf-8"))["chapters"]
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(chapters) <= notebooks
    for chapter, parts in chapters.items():
        cells = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
        (tagged,) = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
        known = {line.split("=")[0].strip() for line in tagged.splitlines()}
        assert {name for part in parts.values() for name in part} <= known
