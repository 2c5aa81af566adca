"""The tables of the page on speed say what the files hold, and who is faster."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from benchmarks import settings
from lfx_utils.chapters import ledger

ROOT = Path(__file__).resolve().parents[1]
ROW = {"versions": {"torch": "2.0"}, "machine": "a machine, 2 cores", "threads": 1, "date": "2026-01-01"}


def tables(folder: Path) -> dict:
    script = f"import json, pathlib, speed; print(json.dumps(speed.tables(pathlib.Path({str(folder)!r}))))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "book", capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_tables(tmp_path):
    rows = [
        ROW | {"job": "ahead", "seconds": {"ours": 1.0, "slow peer": 4.0, "fast peer": 2.0}, "error": {"ours": 0.1}},
        ROW | {"job": "behind", "seconds": {"ours": 3.0, "ours, another way": 1.0, "fast peer": 2.0}},
        ROW | {"job": "alone", "seconds": {"ours": 3.0}},
        ROW | {"job": "near the limit", "seconds": {"ours": 3.0, "the encoder alone, folded": 2.0, "peer": 4.0}},
    ]
    (tmp_path / "cpu.json").write_text(json.dumps(rows), encoding="utf-8")
    found = tables(tmp_path)
    assert "| ahead | 1 | fast peer | 2 | 0.50 |" in found["speed-table"]
    assert "| near the limit | 3 | the encoder alone, folded | 2 | 1.50 |" in found["speed-table"]
    assert found["speed-prefer"] == "- behind: **fast peer**; ours takes 1.5 times as long."
    assert "ahead; error: ours 0.1" in found["speed-facts"]
    assert "a machine, 2 cores, 1 thread(s), 2026-01-01" in found["speed-run"]
    assert "Not yet run" in found["speed-gpu"]
    (tmp_path / "gpu.json").write_text(
        json.dumps({"device": "a GPU", "torch": "2.0", "relax": {"ours": 0.5}}), encoding="utf-8"
    )
    assert "relax; ours 0.5" in tables(tmp_path)["speed-gpu"]


def test_nothing_measured_yet(tmp_path):
    found = tables(tmp_path)
    assert "has not been run" in found["speed-table"] and "has not been run" in found["speed-settings"]


def test_the_hours_of_published_settings(tmp_path):
    row = {"setting": "a network", "step": 0.36, "steps": 1_000, "trainings": 5, "hours": 0.5}
    about = {"machine": "a machine", "threads": 1, "torch": "2.0", "date": "2026-01-01"}
    (tmp_path / "settings.json").write_text(json.dumps(about | {"rows": [row]}), encoding="utf-8")
    found = tables(tmp_path)["speed-settings"]
    assert "| a network | 360 | 1,000 | 5 | 0.5 |" in found and "a machine, 1 thread, torch 2.0, 2026-01-01" in found


def test_a_step_is_timed_and_its_hours_multiplied():
    least = settings.least(lambda: sum(range(100_000)))
    assert 0 < least < 1
    assert settings.rebuilding(torch.nn.Linear(2, 2), 4, 2) > 0
    assert all(callable(measure) and steps > 0 < trainings for measure, steps, trainings in settings.ITEMS.values())


def test_the_kept_hours_are_those_of_the_settings_that_the_program_times():
    found = json.loads((ROOT / "data" / "benchmarks" / "settings.json").read_text(encoding="utf-8"))
    assert [row["setting"] for row in found["rows"]] == list(settings.ITEMS)
    for row, (_, steps, trainings) in zip(found["rows"], settings.ITEMS.values(), strict=True):
        assert (row["steps"], row["trainings"]) == (steps, trainings)
        assert abs(row["hours"] - row["step"] * steps * trainings / 3_600) < 1e-9


def test_every_kept_race_has_a_peer_and_the_page_includes_every_table():
    rows = json.loads((ROOT / "data" / "benchmarks" / "cpu.json").read_text(encoding="utf-8"))
    assert all(len(row["seconds"]) > 1 for row in rows)
    page = (ROOT / "book" / "how-fast.md").read_text(encoding="utf-8")
    assert [name for name in tables(ROOT / "data" / "benchmarks") if f"generated/{name}.md" not in page] == []


def test_hours_of_a_setting_are_found_by_the_start_of_its_name():
    rows = json.loads((ROOT / "data" / "benchmarks" / "settings.json").read_text(encoding="utf-8"))["rows"]
    for row in rows:
        assert float(ledger.hours(row["setting"])) == pytest.approx(row["hours"], rel=0.06)
    with pytest.raises(ValueError, match="must begin one of"):
        ledger.hours("LF")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of a process")
def test_memory_is_that_of_the_function_and_not_of_what_came_before():
    script = """
        import ctypes, torch
        from benchmarks import record
        for kept in (False, True):
            if kept:  # M_MMAP_THRESHOLD: from now on the allocator keeps what is freed below the top of its heap
                ctypes.CDLL(None).mallopt(-3, 1 << 30)
            before, above = torch.ones(2**26), torch.ones(2**18)
            del before
            result, seconds, mib = record.watched(lambda: torch.ones(2**24).sum().item())
            assert result == 2**24 and seconds > 0 and 60 < mib < 100, (kept, mib)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=True)
