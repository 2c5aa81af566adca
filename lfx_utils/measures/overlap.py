"""How much the maps of latent units overlap, and whether that follows β."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import Tensor

CHUNK = 256  # examples of maps that are taken to double precision at a time


def collapsed(maps: Tensor, tolerance: float = 1e-6) -> Tensor:
    """Which units' maps are zero everywhere: those that the measures below leave out, so that they must be counted.

    Args:
        maps: a_i(µ_j, x) `(N, D, …)`, one map for each example and latent unit.
        tolerance: zero is what never exceeds this share of the strongest unit's largest value.

    Returns:
        bool `(D,)`.

    Raises:
        ValueError: maps that are not `(N, D, …)`, empty, or not finite.

    Source: LF, App. C.3, names such units in Fig. 12; Burda et al. (2016) call units collapsed by their variance.
    """
    if not isinstance(maps, Tensor) or maps.dim() < 3 or maps.numel() == 0:
        raise ValueError(f"maps must have shape (N, D, …), a map for each unit, got {getattr(maps, 'shape', maps)}.")
    strongest = maps.abs().flatten(2).amax((0, 2))
    if not strongest.isfinite().all():
        raise ValueError("maps holds NaN or infinite values.")
    return strongest <= tolerance * strongest.max()


def pearson(maps: Tensor) -> float:
    """Correlation of two units' maps over examples and pixels together, a mean over pairs of units that are alive.

    LF's text correlates a_i(µ_j, x) itself, the released code `|µ_j(x) · a_i(µ_j, x)|`; pass the one you mean.

    Args:
        maps: `(N, D, …)`.

    Returns:
        r in [−1, 1]; NaN where fewer than two units are alive.

    Source: LF, App. C.3.
    """
    rows = _alive(maps)
    count, mean = rows.shape[0] * rows.shape[2], rows.mean((0, 2), dtype=torch.float64)
    products = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=maps.device)
    for part in rows.split(CHUNK):
        centred = part.double() - mean[:, None]
        products += torch.einsum("nup,nvp->uv", centred, centred) / count
    spread = products.diagonal().sqrt()
    return _pairs(products / spread[:, None] / spread)


def cosine(maps: Tensor) -> float:
    """Cosine of two units' maps of one example, a mean over examples and over pairs of units that are alive.

    An example in which one of the two maps is zero is left out for that pair.

    Args:
        maps: `(N, D, …)`.

    Returns:
        a value in [−1, 1]; NaN where fewer than two units are alive.

    Source: LF's released code.
    """
    rows = _alive(maps)
    norms = rows.norm(dim=2, keepdim=True)
    units = torch.where(norms > 0, rows / norms, 0)
    seen = (norms[..., 0] > 0).double()
    total = sum(torch.einsum("nup,nvp->uv", part.double(), part.double()) for part in units.split(CHUNK))
    return _pairs(total / (seen.T @ seen))


def entropy(maps: Tensor) -> float:
    """Entropy of the units' shares `|a_i(µ_j, x)| / Σ_k |a_i(µ_k, x)|`, a mean over the pixels that matter to any unit.

    Args:
        maps: `(N, D, …)`.

    Returns:
        S in nats, from 0 (one unit a pixel) to ln D (all alike); a collapsed unit's share is 0 and adds nothing.

    Source: LF, App. C.3.
    """
    total, count = 0.0, 0
    for shares in _shares(maps):
        total += torch.special.entr(shares).sum().item()
        count += len(shares)
    return total / count


def units_per_pixel(maps: Tensor) -> float:
    """How many units have more than 1/D of a pixel's attribution, a mean over the pixels that matter to any unit.

    Args:
        maps: `(N, D, …)`.

    Source: LF's released code ("active neurons").
    """
    counts = [(shares > 1 / maps.shape[1]).sum(1) for shares in _shares(maps)]
    return torch.cat(counts).double().mean().item()


def recognised(maps: Tensor) -> float:
    """Share of maps whose unit a linear classifier names rightly, trained on the first half of the examples.

    Args:
        maps: `(N, D, …)`; each map is scaled to length one, so that only its pattern counts.

    Returns:
        a share; 1/D by chance. NaN where fewer than two units are alive.
    """
    rows = _alive(maps)
    units, half = rows.shape[1], len(rows) // 2
    if units < 2 or not half:
        return float("nan")
    patterns = torch.nn.functional.normalize(rows, dim=2)
    train, test = (part.flatten(0, 1).cpu().numpy() for part in (patterns[:half], patterns[half:]))
    classifier = LogisticRegression(C=10, max_iter=300).fit(train, np.tile(np.arange(units), half))
    return float(classifier.score(test, np.tile(np.arange(units), len(rows) - half)))


def active_units(means: Tensor) -> Tensor:
    """Which units answer to the input: those whose means µ_j(x), `(N, D)`, have a variance above 0.01.

    Source: Burda et al. (2016), Section 5.2.
    """
    return means.var(0) > 0.01


def _alive(maps: Tensor) -> Tensor:
    return maps[:, ~collapsed(maps)].flatten(2)


def _pairs(matrix: Tensor) -> float:
    apart = ~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
    return matrix[apart].mean().item()


def _shares(maps: Tensor):
    if collapsed(maps).all():
        raise ValueError("maps is zero for every unit; no pixel has shares.")
    for part in maps.split(CHUNK):
        sizes = part.flatten(2).abs().double().transpose(1, 2).flatten(0, 1)
        sizes = sizes[sizes.sum(1) > 0]
        yield sizes / sizes.sum(1, keepdim=True)


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ, its bootstrap interval, where permutations put it (interval `null`), and their p-value."""

    rho: float
    low: float
    high: float
    null: tuple[float, float]
    p: float


def spearman(levels, values, draws: int = 5_000, seed: int = 0) -> RankCorrelation:
    """Spearman's ρ of a measure against β, or against another measure, over trained models.

    Args:
        levels: β of each model, or the other measure.
        values: its measure; a NaN (a model without two live units) is left out.
        draws: of permutations, which tell what ρ would be if β did not matter, and of resamples of the models of each
            level, which tell how sure ρ is; of all models where no two share a level.
        seed: of a generator of its own.

    Raises:
        ValueError: lists of unequal length, fewer than three models, or one level or value only.

    Source: LF, App. C.3.
    """
    levels, values = np.asarray(levels, dtype=float), np.asarray(values, dtype=float)
    if levels.shape != values.shape or levels.ndim != 1:
        raise ValueError(f"levels and values must be lists of equal length, got {levels.shape} and {values.shape}.")
    levels, values = levels[np.isfinite(values)], values[np.isfinite(values)]
    if len(values) < 3 or np.ptp(levels) == 0 or np.ptp(values) == 0:
        raise ValueError(f"ρ needs at least three models, two levels and two values, got {len(values)} finite values.")
    rng, tails = np.random.default_rng(seed), (0.025, 0.975)
    ranks = stats.rankdata(levels)
    rho = _correlate(ranks, stats.rankdata(values))
    shuffled = _correlate(rng.permuted(np.tile(ranks, (draws, 1)), axis=1), stats.rankdata(values))
    resample = np.empty((draws, len(values)), int)
    groups = levels if len(np.unique(levels)) < len(levels) else np.zeros_like(levels)
    for group in np.unique(groups):
        (own,) = np.nonzero(groups == group)
        resample[:, own] = rng.choice(own, (draws, len(own)))
    redrawn = _correlate(*(stats.rankdata(column[resample], axis=1) for column in (levels, values)))
    p = (1 + (np.abs(shuffled) >= abs(rho) - 1e-12).sum()) / (1 + draws)
    low, high = np.nanquantile(redrawn, tails)
    return RankCorrelation(float(rho), float(low), float(high), tuple(np.quantile(shuffled, tails).tolist()), float(p))


def _correlate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = (ranks - ranks.mean(-1, keepdims=True) for ranks in (first, second))
    with np.errstate(invalid="ignore"):  # a resample may hold one value only
        return (first * second).sum(-1) / np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
