"""How far an estimate can be from the true map: Theorem 1 beforehand, empirical Bernstein once there are scores."""

import math

import torch
from torch import Tensor

from lfx_utils.relax.estimators import Moments


def bound_masks(t: float, delta: float, width: float = 1.0) -> int:
    """Return the least N for which one pixel's Eq. 2 errs by t or more with probability at most delta.

    Args:
        width: of the interval that s m lies in; 1 for s in (0, 1), as the theorem supposes, 2 for a signed cosine.

    Source:
        Wickstrøm et al. 2023, Theorem 1 (Eq. 4). For a whole map at once, give delta divided by its pixels.

    >>> bound_masks(0.01, 0.01), round(bound_error(3_000, 0.01), 4)
    (26492, 0.0297)
    """
    if not t > 0:
        raise ValueError(f"t must be positive, got {t}.")
    return math.ceil(math.log(2 / _share(delta)) * width**2 / (2 * t**2))


def bound_error(n_masks: int, delta: float, width: float = 1.0) -> float:
    """Return the t that Theorem 1 gives for N masks: `bound_masks` the other way round."""
    if n_masks < 1:
        raise ValueError(f"n_masks must be at least 1, got {n_masks}.")
    return width * math.sqrt(math.log(2 / _share(delta)) / (2 * n_masks))


def half_width(moments: Moments, delta: float, width: float = 1.0, estimator: str = "ratio") -> Tensor:
    """Return t `(B, …)` such that each pixel's error is at most t with probability at least 1 − delta.

    Empirical Bernstein: like Theorem 1 it holds for every N and every encoder, but with the variance that was seen in
    place of the largest possible. For "ratio", the true r is where E[(s − r) m] = 0: all r for which the interval
    around the mean of (s − r) m contains 0 form the confidence set, of which t is the reach, rounded up.

    Args:
        moments: of masks drawn independently of one another.
        delta: for one pixel; divide by the pixels, and by the times you look, to have all at once.
        width: of the interval that s lies in, 0 included: 1 for a cosine of non-negative representations, else 2.
        estimator: "ratio" (Eq. 12) or "mean" (Eq. 2).

    Source:
        Maurer & Pontil 2009, Theorem 4, two-sided.
    """
    count, first, second = moments.count, moments.first, moments.squared
    if count < 2:
        raise ValueError("half_width needs the scores of at least 2 masks, since it rests on their variance.")
    centre = moments.importance(estimator)
    log = math.log(4 / _share(delta))
    reach, slack = math.sqrt(2 * log / count), 7 * width * log / (3 * (count - 1))
    if estimator == "mean":
        return (moments.uncertainty("variance").sqrt() * reach + slack).clamp_max(width)
    deviation = ((second.spread + second.total * (second.mean - centre).square()) / (count - 1)).sqrt()
    kept = ((second.total - first.total.square() / count) / (count - 1)).clamp_min(0).sqrt()
    # The deviation of (s − r) m grows by at most |r − R̄| times that of m.
    lever = first.total / count - reach * kept
    return torch.where(lever > 0, (deviation * reach + slack) / lever, width).clamp_max(width)


def spent(delta: float, look: int) -> float:
    """Return what of delta the look number `look` = 1, 2, … may spend, such that all looks together spend delta."""
    return _share(delta) / (look * (look + 1))


def _share(delta: float) -> float:
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie strictly between 0 and 1, got {delta}.")
    return delta
