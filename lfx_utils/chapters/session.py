"""Start a chapter: its profile, seeds, device, threads and output folder."""

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

PROFILES = ("smoke", "quick", "paper")


@dataclass(frozen=True)
class Session:
    """What a running chapter needs to know about its run; made by `start`."""

    chapter: str
    profile: str
    seed: int
    device: torch.device
    out: Path
    began: float

    def choose(self, *, smoke, quick, paper):
        """Return the argument named like this session's profile.

        >>> start("doc", "smoke").choose(smoke=8, quick=1_000, paper=60_000)
        8
        """
        return {"smoke": smoke, "quick": quick, "paper": paper}[self.profile]

    def checkpoint(self, name: str) -> Path | None:
        """Where a training run of the `paper` profile saves itself to resume from; None at the smaller profiles."""
        return self.out / "checkpoints" / f"{self.chapter}-{name}.pt" if self.profile == "paper" else None


def start(chapter: str, profile: str = "quick", seed: int = 0) -> Session:
    """Seed every generator, pick the device and make the output folder.

    The results go to `$LFX_OUT` (default: `_build/results` beside the notebooks, or the working folder) in a
    folder named after the profile. `$LFX_THREADS` bounds the CPU threads, for several notebooks at once.

    Args:
        chapter: the notebook's name, such as `"01_completeness"`.
        profile: `"smoke"` (tests), `"quick"` (reading) or `"paper"` (the published setting).
        seed: a non-negative integer.

    Raises:
        ValueError: an unknown profile, or a seed that is not a non-negative integer.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}.")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed!r}.")
    seed_all(seed)
    if threads := os.environ.get("LFX_THREADS"):
        torch.set_num_threads(int(threads))
    out = Path(os.environ.get("LFX_OUT") or "_build/results").expanduser().resolve() / profile
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{chapter}.json").unlink(missing_ok=True)  # a new run starts with an empty record
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Session(chapter, profile, seed, device, out, time.perf_counter())


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch; Captum's random methods draw from the last two."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
