"""Races between contenders, and their results as `data/benchmarks/cpu.json`, which the page "How fast" shows."""

import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "data" / "benchmarks" / "cpu.json"


def race(contenders: Mapping[str, Callable[[], object]], repeats: int = 3) -> tuple[dict[str, float], dict]:
    """Return each contender's least seconds of the processor, and what it returned; one that fails is left out.

    They take turns, each repeat beginning with another one, and are charged the processor's seconds, all threads
    together, rather than the clock's, for the sake of busy machines. The least of several is what others disturbed
    least.
    """
    names, seconds, results = list(contenders), {}, {}
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            start = time.process_time()
            try:
                results[name] = contenders[name]()
            except ImportError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            seconds[name] = min(seconds.get(name, float("inf")), time.process_time() - start)
    for name in filter(seconds.get, names):
        ratio = seconds[names[0]] / seconds[name]
        print(f"  {name:44} {seconds[name]:9.4f} s, {names[0]} takes {ratio:.2f} of it", flush=True)
    return {name: seconds[name] for name in names if name in seconds}, results


def keep(job: str, seconds: Mapping[str, float], *, packages: tuple[str, ...] = (), **facts) -> None:
    """Write the seconds of a race, the first contender ours, in place of what an earlier run kept for this job.

    Args:
        job: what was done, with sizes.
        seconds: by contender.
        packages: the peers' distributions, whose versions are noted.
        facts: what else was measured, by name.
    """
    import torch

    rows = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    row = {"job": job, "seconds": {name: float(f"{value:.4g}") for name, value in seconds.items()}, **facts}
    row |= {
        "versions": {name: found for name in ("torch", *packages) if (found := _version(name))},
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    if any(each["job"] == job for each in rows):
        rows = [row if each["job"] == job else each for each in rows]
    else:
        rows.append(row)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def watched(function: Callable[[], object]) -> tuple[object, float, float]:
    """Return what a function returns, the processor's seconds, and the MiB by which memory grew at its peak.

    The kernel's own mark of the peak is set back first: else it would hold what imports took, or, in a process that
    another one started, what that one held. What the allocator keeps of freed memory goes back to the kernel before:
    else the function would fill that, and memory would not seem to grow.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, start = memory("VmRSS"), time.process_time()
    result = function()
    return result, time.process_time() - start, memory("VmHWM") - before


def alone(module: str, *arguments: object, env: Mapping[str, str] | None = None):
    """Return what a benchmark prints as JSON where it runs in a process of its own, with these arguments.

    Raises:
        subprocess.CalledProcessError: it failed, or was killed.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return json.loads(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout)


def memory(name: str) -> float:
    """Return the MiB that the kernel counts under a name: VmRSS what the process holds now, VmHWM at the most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def machine() -> str:
    """Return the processor's name and the number of its cores."""
    info = Path("/proc/cpuinfo")
    names = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in names if line.startswith("model name")), platform.processor())
    return f"{name or platform.machine()}, {os.cpu_count()} cores"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
