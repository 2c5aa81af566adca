"""From similarities and masks to importance and uncertainty, in one pass or two, and U-RELAX."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Similarity = Callable[[Tensor, Tensor], Tensor]


def cosine(latents: Tensor, masked: Tensor) -> Tensor:
    """Return the cosine of the angle between rows `(R, D)` and `(R, D)` (Eq. 3).

    Where a masked input's representation is zero, it is 0 as in the released code, with a warning.

    Raises:
        ValueError: an unmasked input's representation is zero.
    """
    if not latents.any(dim=-1).all():
        raise ValueError(
            "An input's representation has norm zero, so its cosine similarity to anything is undefined; "
            "use rbf(width) or a similarity of your own."
        )
    if zero := int((~masked.any(dim=-1)).sum()):
        warnings.warn(
            f"{zero} masked representations have norm zero, where cosine similarity is undefined; it is taken as 0.",
            RuntimeWarning,
            stacklevel=2,
        )
    return torch.cosine_similarity(latents, masked, dim=-1)


def dot(latents: Tensor, masked: Tensor) -> Tensor:
    """Return the inner products of rows `(R, D)` and `(R, D)`."""
    return (latents * masked).sum(dim=-1)


def rbf(width: float) -> Similarity:
    """Return the Gaussian kernel exp(−‖h − h̄‖² / 2 width²), a similarity that needs no norm and lies in (0, 1]."""
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}.")
    return lambda latents, masked: torch.exp((latents - masked).square().sum(dim=-1) / (-2 * width**2))


@dataclass(frozen=True)
class Weighted:
    """Weighted mean and scatter of scores at each pixel: total `(…)`, mean and spread `(B, …)`.

    The total is Σ w, the mean Σ w s / Σ w (0 where the total is), the spread Σ w (s − mean)².
    """

    total: Tensor
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, scores: Tensor, weights: Tensor) -> "Weighted":
        """Summarise scores `(B, N)` under weights `(N, …)`."""
        centre, flat = scores.mean(dim=1, keepdim=True), weights.flatten(1)
        # Scores differ far less from one another than from zero: centred, their squares keep their digits.
        centred, total = scores - centre, flat.sum(dim=0)
        mean = centred @ flat / total.clamp_min(torch.finfo(total.dtype).tiny)
        spread = (centred.square() @ flat - total * mean.square()).clamp_min(0)
        mean = torch.where(total > 0, mean + centre, 0)
        shape = weights.shape[1:]
        return cls(total.view(shape), mean.view(-1, *shape), spread.view(-1, *shape))

    def __add__(self, other: "Weighted") -> "Weighted":
        total = self.total + other.total
        share = other.total / total.clamp_min(torch.finfo(total.dtype).tiny)
        gap = other.mean - self.mean
        return Weighted(total, self.mean + share * gap, self.spread + other.spread + gap.square() * share * self.total)


@dataclass(frozen=True)
class Moments:
    """All that the estimators keep of the masks seen so far; `+` joins batches, devices or days, in any order.

    Args:
        count: N, masks seen.
        first: scores `(B, …)` weighted by the masks.
        second: scores weighted by the squared masks, for variances and bounds; None where they were not asked for.

    Source:
        Wickstrøm et al. 2023, Section 3.4 (one mask at a time, after West 1979); batches join after Chan et al. 1983.

    >>> scores, masks = torch.rand(1, 6), torch.rand(6, 4, 4)
    >>> parts = Moments.of(scores[:, :2], masks[:2]) + Moments.of(scores[:, 2:], masks[2:])
    >>> torch.allclose(parts.importance(), (scores @ masks.flatten(1) / masks.flatten(1).sum(0)).view(1, 4, 4))
    True
    """

    count: int
    first: Weighted
    second: Weighted | None

    @classmethod
    def of(cls, scores: Tensor, masks: Tensor, bounded: bool = True) -> "Moments":
        """Summarise scores `(B, N)` of B inputs under masks `(N, …)` that they share, `bounded` if with `second`."""
        return cls(len(masks), Weighted.of(scores, masks), Weighted.of(scores, masks.square()) if bounded else None)

    def __add__(self, other: "Moments") -> "Moments":
        second = self.second + other.second if self.second and other.second else None
        return Moments(self.count + other.count, self.first + other.first, second)

    @property
    def squared(self) -> Weighted:
        """`second`, or ValueError where it was not asked for."""
        if self.second is None:
            raise ValueError("Bounds and the variance need evidence(…, keep=('bounds',)), which this run was not told.")
        return self.second

    def importance(self, estimator: str = "ratio") -> Tensor:
        """Return R̄ `(B, …)`.

        Args:
            estimator: "ratio" divides Σ s m by Σ m (Eq. 12, Algorithm 1), "mean" by N (Eq. 2). The first estimates
                E[s m] / E[m]. The second, which the theorems are about, E[s m]: mostly how often a pixel was kept.
        """
        if estimator not in ("ratio", "mean"):
            raise ValueError(f"estimator must be 'ratio' (Eq. 12) or 'mean' (Eq. 2), got {estimator!r}.")
        return self.first.mean if estimator == "ratio" else self.first.mean * (self.first.total / self.count)

    def uncertainty(self, estimator: str = "ratio") -> Tensor:
        """Return Ū `(B, …)`.

        Args:
            estimator: "ratio" is Σ m (s − R̄)² / (Σ m − 1) with R̄ of Eq. 12 (Algorithm 1), "sum" the same undivided
                (Eq. 13, the released code), "mean" Σ m (s − R̄)² / N with R̄ of Eq. 2 (Eq. 9), "variance" the sample
                variance of s m (Eq. 8, of which Eq. 9 is no estimate). NaN where a pixel was kept once or less.
        """
        first = self.first
        if estimator == "sum":
            return first.spread
        if estimator == "ratio":
            return first.spread / torch.where(first.total > 1, first.total - 1, torch.nan)
        mean = self.importance("mean")
        if estimator == "mean":
            return (first.spread + first.total * (first.mean - mean).square()) / self.count
        if estimator == "variance":
            second = self.squared
            squares = second.spread + second.total * second.mean.square() - self.count * mean.square()
            return squares.clamp_min(0) / (self.count - 1 or torch.nan)
        raise ValueError(f"estimator must be 'ratio', 'sum', 'mean' or 'variance', got {estimator!r}.")


def two_pass(scores: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return importance and uncertainty `(B, …)` as Eqs. 2 and 9 read: the second pass needs the first's result.

    Args:
        scores: `(B, N)`.
        masks: `(N, …)`.
    """
    flat, centre = masks.flatten(1), scores.mean(dim=1, keepdim=True)
    importance = scores @ flat / len(masks)
    # (s − r)² around the scores' mean, from which both differ little, so that no (N, H, W) is made for each input.
    aside, apart = scores - centre, importance - centre
    sums = aside.square() @ flat - 2 * apart * (aside @ flat) + apart.square() * flat.sum(dim=0)
    shape = (-1, *masks.shape[1:])
    return importance.view(shape), (sums / len(masks)).view(shape)


def u_relax(importance: Tensor, uncertainty: Tensor, gamma: float = 1.0, aggregate: str = "mean") -> Tensor:
    """Return the importance where the uncertainty is below ε, and 0 elsewhere.

    Args:
        importance, uncertainty: `(B, …)`.
        gamma: γ, the share of the average uncertainty that is still let through.
        aggregate: "mean" or "median" of the input's uncertainty, of which ε is the γ-fold.

    Source:
        Wickstrøm et al. 2023, Eqs. 10 and 11.
    """
    if importance.shape != uncertainty.shape:
        raise ValueError(
            "importance and uncertainty must have one shape, "
            f"got {tuple(importance.shape)} and {tuple(uncertainty.shape)}."
        )
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}.")
    if aggregate not in ("mean", "median"):
        raise ValueError(f"aggregate must be 'mean' or 'median', got {aggregate!r}.")
    flat = uncertainty.flatten(1)
    typical = flat.nanmean(dim=1) if aggregate == "mean" else flat.nanmedian(dim=1).values
    limit = gamma * typical.view(-1, *[1] * (uncertainty.dim() - 1))
    return importance.where(uncertainty < limit, 0)
