"""The same map from fewer masks: scores that follow the masks linearly need no chance, since the masks' law is known.

With s = a + ⟨b, M − p⟩ + rest, what the linear part adds to the map E[s M_ij] / E[M_ij] is known exactly: b times the
masks' covariance p (1 − p) K_H ⊗ K_W, where each factor is an average over an axis's shifts. What it adds to the
estimate is known too. The difference has expectation zero: a control variate. It takes the linear part out of the
error, so that as many masks go about 1 / (1 − R²) times as far, with R² the share of the scores' variance that the
masks explain.
"""

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from lfx_utils.relax.masks import Cells

MOST = 256  # Features; beyond, the masks vary too little for a representation to see it.
PLACES = 512  # Of an axis at which masks are looked at, evenly spaced; cells are so smooth that more show nothing new.


@dataclass(frozen=True)
class Basis:
    """Uncorrelated coordinates of a family of masks: the eigenvectors of its covariance.

    Masks are looked at in up to 512 places of an axis. How far a coordinate goes with the mask everywhere else is known
    as exactly, from the masks' law.

    Args:
        axes: of each axis the step from place to place, the eigenvectors of the covariance between places
            `(places, q)`, and what they go along with `(size, q)`; a coordinate's vector is a product of one of each.
        kept: which products, `(K,)`, by falling variance.
        deviations: the masks' standard deviation along each, `(K,)`.
        p: E[M].
    """

    axes: list[tuple[int, Tensor, Tensor]]
    kept: Tensor
    deviations: Tensor
    p: float

    @classmethod
    def of(cls, cells: Cells, shape: tuple[int, ...]) -> "Basis":
        """Return the basis of cell masks on an input of `shape`."""
        axes, values = [], []
        for axis in cells.axes(shape):
            step = math.ceil(axis.shape[1] / PLACES)
            shared = _shared(axis, step)
            value, vector = torch.linalg.eigh(shared[::step])
            # Cells spread over somewhat more coordinates than there are of them, since they shift.
            leading = slice(-min(len(value), axis.shape[2] + 5), None)
            value, vector = value[leading].clamp_min(0), vector[:, leading]
            along = vector if step == 1 else shared @ vector / value.clamp_min(1e-12 * value[-1])
            axes.append((step, vector.float(), along.float()))
            values.append(value)
        variance = reduce(lambda one, other: torch.outer(one, other).flatten(), values)
        variance = variance * cells.p * (1 - cells.p)
        kept = variance.argsort(descending=True)[:MOST]
        kept = kept[variance[kept] > 1e-6 * variance[kept[0]]]
        return cls(axes, kept, variance[kept].sqrt(), cells.p)

    def features(self, masks: Tensor) -> Tensor:
        """Return the coordinates `(N, K)` of masks `(N, *shape)`: mean 0, variance 1, uncorrelated."""
        rest = masks[(slice(None), *(slice(None, None, step) for step, _, _ in self.axes))] - self.p
        for _, vectors, _ in self.axes:
            rest = torch.einsum("ns...,sq->n...q", rest, vectors.to(rest))
        return rest.flatten(1).cpu().double()[:, self.kept] / self.deviations

    def covariance(self, coefficients: Tensor) -> Tensor:
        """Return Cov(⟨coefficients, features⟩, M), `(B, *shape)`, of coefficients `(B, K)`."""
        sizes = [vectors.shape[1] for _, vectors, _ in self.axes]
        rest = torch.zeros(len(coefficients), math.prod(sizes), dtype=coefficients.dtype)
        rest[:, self.kept] = coefficients * self.deviations
        rest = rest.view(-1, *sizes)
        for _, _, along in self.axes:
            rest = torch.einsum("bq...,sq->b...s", rest, along.to(rest))
        return rest


def _shared(axis: Tensor, step: int) -> Tensor:
    """Return what each pixel of an axis shares with each `step`-th, `(size, places)`, from `(shifts, size, cells)`."""
    few = max(1, 2**20 // axis[0].numel())
    return sum(
        torch.einsum("hsc,hpc->sp", part, part[:, ::step]) for part in (some.double() for some in axis.split(few))
    ) / len(axis)


@dataclass(frozen=True)
class Regression:
    """All that a linear regression of scores on features needs of the masks seen so far; `+` joins, in any order.

    Args:
        weight: Σ w. A mask that keeps little weighs little, as in the maps: w is the mean of its squares.
        features, scores: weighted means, `(K,)` and `(B,)`.
        gram, cross, squares: weighted sums of centred products, `(K, K)`, `(K, B)` and `(B,)`.
        sums, products: of the features, neither weighted nor centred, `(K,)` and `(K, K)`.
    """

    weight: Tensor
    features: Tensor
    scores: Tensor
    gram: Tensor
    cross: Tensor
    squares: Tensor
    sums: Tensor
    products: Tensor
    count: int

    @classmethod
    def seen(cls, bases: tuple[Basis, ...], scores: Tensor, masks: list[Tensor]) -> "Regression":
        """Summarise scores `(B, N)` under the masks `(N, …)` of each of several inputs."""
        features = [basis.features(mask) for basis, mask in zip(bases, masks, strict=True)]
        weights = sum(torch.linalg.vector_norm(mask.flatten(1), dim=1).square() / mask[0].numel() for mask in masks)
        return cls.of(scores, torch.cat(features, dim=1), weights)

    @classmethod
    def of(cls, scores: Tensor, features: Tensor, weights: Tensor) -> "Regression":
        """Summarise scores `(B, N)` and features `(N, K)` of N masks with weights `(N,)`."""
        scores, weights = scores.T.cpu().double(), weights.cpu().double()[:, None]
        total = weights.sum()
        mean_x, mean_y = (weights * features).sum(dim=0) / total, (weights * scores).sum(dim=0) / total
        x, y = features - mean_x, scores - mean_y
        squares = (weights * y.square()).sum(dim=0)
        sums, products = features.sum(dim=0), features.T @ features
        return cls(total, mean_x, mean_y, x.T @ (weights * x), x.T @ (weights * y), squares, sums, products, len(x))

    def __add__(self, other: "Regression") -> "Regression":
        weight = self.weight + other.weight
        share, pull = other.weight / weight, self.weight * other.weight / weight
        x, y = other.features - self.features, other.scores - self.scores
        return Regression(
            weight,
            self.features + share * x,
            self.scores + share * y,
            self.gram + other.gram + pull * torch.outer(x, x),
            self.cross + other.cross + pull * torch.outer(x, y),
            self.squares + other.squares + pull * y.square(),
            self.sums + other.sums,
            self.products + other.products,
            self.count + other.count,
        )

    def fit(self, deviations: Tensor) -> Tensor:
        """Return the slope of the scores in each feature, `(B, K)`.

        The penalty is on the slope in a pixel, so that coordinates in which masks hardly vary are hardly used; its
        strength is each input's own, by generalised cross-validation.
        """
        scale = (deviations / deviations.max())[:, None]
        values, vectors = torch.linalg.eigh(scale * self.gram * scale.T)
        values, turned = values.clamp_min(0)[:, None], vectors.T @ (scale * self.cross)
        shrunk = 1 / (values + self.weight * torch.logspace(-3, 3, 25, dtype=torch.float64))
        left = self.squares - 2 * shrunk.T @ turned.square() + (values * shrunk.square()).T @ turned.square()
        free = (1 - (1 + (values * shrunk).sum(dim=0)) / self.count).clamp_min(1e-3)
        best = (left / free[:, None].square()).argmin(dim=0)
        return (scale * (vectors @ (turned * shrunk[:, best]))).T


def corrections(regression: Regression, bases: tuple[Basis, ...], totals: list[Tensor]) -> list[Tensor]:
    """Return what to add to each input's ratio `(B, *shape)`: what the linear part is due, less what it got by chance.

    Where a pixel was kept once or less in all, nothing is added.

    Args:
        totals: Σ m at each pixel, one for each input.
    """
    slopes = regression.fit(torch.cat([basis.deviations for basis in bases]))
    level, sampled = slopes @ regression.sums, slopes @ regression.products
    sizes = [len(basis.deviations) for basis in bases]
    found = []
    for basis, due, got, total in zip(bases, slopes.split(sizes, 1), sampled.split(sizes, 1), totals, strict=True):
        total = total.cpu().double().view([len(along) for _, _, along in basis.axes])
        got = basis.covariance(got) + basis.p * level.view(-1, *[1] * total.dim())
        # Divided by next to nothing, what the coordinates leave out of the masks would count for much.
        found.append(torch.where(total > 1, basis.covariance(due) / basis.p - got / total, 0))
    return found
