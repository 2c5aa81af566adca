"""Generated heartbeats, normal and abnormal: ECG5000's stand-in."""

from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from .base import Dataset, assemble

CLASS_NAMES = ("normal", "R-on-T PVC", "PVC", "supraventricular premature", "unclassified")
COUNTS = (2_919, 1_767, 96, 194, 24)  # ECG5000's
STEPS = 140
START = 0.31  # the phase after the R peak at which a beat is cut from the recording, as in ECG5000
NOISE = 0.04
RESTLESSNESS = 0.9  # of the log-normal factor that the spreads of one beat share: some stray far from their class
GENERATOR_SEED = 2003

# A wave: phase of its peak (rad, R peak of a normal beat at 0), width b (rad), height; then how far phase and height
# spread over the beats. Phases, widths and heights were fitted, through `simulate`, to the class means of ECG5000.
WAVES = (
    (  # normal: P, R, S, T (biphasic)
        (-1.29, 0.22, 1.68, 0.04, 0.30), (0.01, 0.17, 1.27, 0.04, 0.40), (0.47, 0.10, -3.67, 0.02, 0.40),
        (1.89, 0.24, -0.49, 0.06, 0.25), (-2.43, 0.72, 0.71, 0.10, 0.25),
    ),
    (  # R-on-T premature ventricular contraction: no P, a wide notched QRS, T opposite to it
        (0.07, 0.13, -3.22, 0.06, 0.80), (0.58, 0.15, -2.45, 0.06, 0.60), (1.51, 0.35, 0.23, 0.10, 0.25),
        (-1.32, 0.85, 0.69, 0.10, 0.25),
    ),
    (  # premature ventricular contraction, late: no P, a wide notched QRS
        (0.16, 0.11, -3.07, 0.10, 1.30), (0.52, 0.11, -1.72, 0.10, 0.90), (1.51, 0.35, 0.10, 0.30, 0.40),
        (-1.37, 1.32, 0.84, 0.10, 0.30),
    ),
    (  # supraventricular premature beat: P small, late and close to a narrow QRS
        (-0.31, 0.12, 0.48, 0.08, 0.60), (0.09, 0.10, -0.96, 0.08, 1.80), (0.54, 0.14, -2.84, 0.05, 0.50),
        (-1.19, 0.90, 0.76, 0.10, 0.25),
    ),
    (  # unclassified: a normal QRS, weak other waves, and one more anywhere
        (-1.29, 0.30, 0.60, 0.30, 0.60), (0.01, 0.17, 0.60, 0.15, 1.00), (0.47, 0.12, -2.60, 0.15, 1.20),
        (-2.43, 0.72, 0.60, 0.30, 0.40), (2.00, 0.25, -1.50, 1.20, 1.50),
    ),
)  # fmt: skip
PERIODS = ((0.70, 0.04), (0.60, 0.05), (0.65, 0.06), (0.58, 0.05), (0.65, 0.10))  # RR interval and its spread, seconds


def load(train=None, test=None, seed=0, root=None, download=False, split="normal") -> Dataset:
    """Load 5,000 generated heartbeats of five kinds in ECG5000's numbers; the baseline is the mean normal beat.

    Args:
        train: how many training beats, None for all.
        test: how many test beats, None for all.
        seed: of the draw and of the random split; the beats themselves are always the same 5,000.
        root: not used, the beats are generated.
        download: not used.
        split: `"normal"` trains on normal beats and tests on abnormal ones, `"random"` divides all 80/20.

    Returns:
        sequences `(N, 140, 1)`, each of mean 0 and variance 1; labels 0–4, where 0 is normal (the papers use only
        normal against the rest).

    Raises:
        ValueError: an unknown split.

    Source: McSharry, Clifford, Tarassenko & Smith (2003), A dynamical model for generating synthetic
    electrocardiogram signals, IEEE Trans. Biomed. Eng. 50(3); splits and baseline from LF, App. C.1.

    >>> load(train=5, test=2).train.shape
    torch.Size([5, 140, 1])
    """
    return divide(
        "heartbeats", *generate(), (train, test), seed, split,
        provenance=f"Heartbeats of McSharry et al.'s dynamical model (2003), generator seed {GENERATOR_SEED}.",
    )  # fmt: skip


def sizes(split="normal") -> tuple[int, int]:
    """Return how many training and test beats a split has."""
    return tuple(map(len, _rows(np.repeat(np.arange(len(COUNTS)), COUNTS), 0, split)))


def _rows(labels: np.ndarray, seed: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    if split == "normal":
        return np.flatnonzero(labels == 0), np.flatnonzero(labels != 0)
    if split == "random":
        order, cut = np.random.default_rng(seed).permutation(len(labels)), len(labels) * 4 // 5
        return order[:cut], order[cut:]
    raise ValueError(f"split must be 'normal' or 'random', got {split!r}.")


def divide(name, beats, labels, amounts, seed, split, provenance) -> Dataset:
    """Split beats `(N, T)` with labels `(N,)`, 0 for normal, as LF does, and draw from both parts.

    Raises:
        ValueError: an unknown split.
    """
    train, test = ((beats[rows], labels[rows]) for rows in _rows(labels, seed, split))
    mean = torch.as_tensor(train[0][train[1] == 0].mean(0), dtype=torch.float32)[:, None]
    return assemble(
        name, train, test, amounts, seed,
        convert=lambda drawn: torch.as_tensor(drawn, dtype=torch.float32)[..., None],
        class_names=CLASS_NAMES,
        baseline=partial(_mean_beat, mean),
        provenance=provenance,
    )  # fmt: skip


def _mean_beat(mean: Tensor, inputs: Tensor) -> Tensor:
    return mean.to(inputs).expand_as(inputs)


@lru_cache(maxsize=1)
def generate() -> tuple[np.ndarray, np.ndarray]:
    """Return the 5,000 beats `(5000, 140)` in random order and their labels `(5000,)`.

    Every beat has its own RR interval, waves, cut, baseline wander and noise. Within a class the widths follow the
    square root of the heart rate, as in the authors' own generator.
    """
    rng = np.random.default_rng(GENERATOR_SEED)
    labels = rng.permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))
    waves = np.zeros((len(WAVES), max(map(len, WAVES)), 5))
    waves[..., 1] = 1
    for kind, rows in enumerate(WAVES):
        waves[kind, : len(rows)] = rows
    phases, widths, heights, phase_spreads, height_spreads = waves[labels].transpose(2, 0, 1)
    usual, deviation = np.array(PERIODS)[labels].T
    periods = usual + (deviation * rng.standard_normal(len(labels))).clip(-0.3, 0.3)
    strays = np.exp(RESTLESSNESS * rng.standard_normal((3, len(labels), 1)))
    strays = strays * rng.standard_normal((3, *phases.shape))
    phases = phases + phase_spreads * strays[0]
    widths = widths * np.exp(0.06 * strays[1]).clip(0.6, 1.7) * np.sqrt(usual / periods)[:, None]
    heights = heights + height_spreads * strays[2]
    starts = START + 0.05 * rng.standard_normal(len(labels))
    wander = 0.5 * rng.random(len(labels)), 2 * np.pi * rng.random(len(labels))
    beats = simulate(phases, widths, heights, periods, starts, wander)
    beats += NOISE * rng.standard_normal(beats.shape)
    beats -= beats.mean(1, keepdims=True)
    return (beats / beats.std(1, ddof=1, keepdims=True)).astype(np.float32), labels


def simulate(phases, widths, heights, periods, starts, wander) -> np.ndarray:
    """Integrate the dynamical model of the electrocardiogram over one beat, for many beats at once.

    A point runs round the unit circle once a beat, and each wave pushes z up and down as the point passes its phase:

        ẋ = αx − ωy,   ẏ = αy + ωx,   α = 1 − √(x² + y²),   ω = 2π / RR,   θ = atan2(y, x)
        ż = −Σ_i a_i Δθ_i exp(−Δθ_i² / 2b_i²) − (z − z₀(t)),   Δθ_i = (θ − θ_i) mod 2π,   z₀(t) = A sin(2πft + φ)

    with a_i = ω·height_i / b_i², so that a narrow wave reaches about its height. The fourth-order Runge–Kutta method
    takes one step a sample, from half a beat before the cut, where z starts at 0.

    Args:
        phases: θ_i, `(N, W)`.
        widths: b_i, `(N, W)`.
        heights: `(N, W)`, 0 for no wave.
        periods: RR intervals in seconds, `(N,)`.
        starts: the phase at the first sample, `(N,)`.
        wander: amplitudes A and phases φ of the baseline wander, `(N,)` each; f is the breathing's 0.25 Hz.

    Returns:
        z at 140 equal steps of one RR interval, `(N, 140)`.

    Source: McSharry et al. (2003), Eqs. 1 and 2.
    """
    omega = 2 * np.pi / periods
    phases, widths, heights = (np.ascontiguousarray(waves.T) for waves in (phases, widths, heights))
    pushes, sharpness = omega * heights / widths**2, 0.5 / widths**2
    amplitude, offset = wander

    def slope(time, state):
        x, y, z = state
        pull = 1 - np.hypot(x, y)
        turned = (np.arctan2(y, x) - phases + np.pi) % (2 * np.pi) - np.pi
        push = (pushes * turned * np.exp(-sharpness * turned**2)).sum(0)
        rest = amplitude * np.sin(0.5 * np.pi * time + offset)
        return np.stack((pull * x - omega * y, pull * y + omega * x, rest - z - push))

    step, before = periods / STEPS, STEPS // 2
    state = np.stack((np.cos(starts - np.pi), np.sin(starts - np.pi), np.zeros_like(starts)))
    samples = np.empty((len(periods), STEPS))
    for sample in range(-before, STEPS):
        if sample >= 0:
            samples[:, sample] = state[2]
        time = sample * step
        first = slope(time, state)
        second = slope(time + step / 2, state + step / 2 * first)
        third = slope(time + step / 2, state + step / 2 * second)
        fourth = slope(time + step, state + step * third)
        state = state + step / 6 * (first + 2 * second + 2 * third + fourth)
    return samples
