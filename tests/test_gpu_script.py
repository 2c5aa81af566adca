"""Every part of the GPU's script, in small on the CPU: it runs, goes on where it stopped, and refuses other files."""

import json

import pytest

from benchmarks import gpu


def test_every_part_runs_and_none_runs_twice(tmp_path):
    out = tmp_path / "gpu.json"
    gpu.main("cpu", True, out, limit=-1)
    assert not out.exists()  # no time for any part
    found = gpu.main("cpu", True, out, limit=1e9)
    assert set(gpu.PARTS) <= set(found) and json.loads(out.read_text(encoding="utf-8")) == json.loads(json.dumps(found))
    assert found["agreement"]["agree"] == found["agreement"]["of"] > 15, found["agreement"]["differences"]
    assert all(value > 0 for value in (found["simclr"]["an epoch"], found["nem"]["NEM-U"]["batch 1"]))
    before = out.read_text(encoding="utf-8")
    gpu.main("cpu", True, out, limit=1e9)
    assert out.read_text(encoding="utf-8") == before
    with pytest.raises(SystemExit, match="another device or size"):
        gpu.main("cpu", False, out, limit=-1)
