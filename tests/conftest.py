"""What all tests share: one thread each, a results folder of their own, the longest first."""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["LFX_OUT"] = tempfile.mkdtemp(prefix="lfx-tests-")


def pytest_xdist_auto_num_workers(config):
    """As many workers as this process may use cores, within what memory bears."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, 8)


def pytest_collection_modifyitems(items):
    """Start what is marked as long first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
