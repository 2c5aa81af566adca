"""The same map from fewer masks: regress the scores on the masks, whose distribution is known exactly.

With s ≈ a + ⟨b, M − p⟩ the map is E[s M_ij] / E[M_ij] = E[s] + Cov(s, M_ij) / p, and of Cov(M) = p (1 − p) K_H ⊗ K_W each
factor is an average over shifts. What is left to chance is only what the regression leaves of the scores: with the
share R² of their variance explained, the error is that of 1 / (1 − R²) times as many masks.
"""

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from lfx_utils.relax.masks import Cells

MOST = 256  # Features; beyond, the masks vary too little for a representation to see it.


@dataclass(frozen=True)
class Basis:
    """Uncorrelated coordinates of a family of masks: the eigenvectors of its covariance.

    Args:
        axes: eigenvectors of each axis, `(size, q)`; a coordinate's vector is a product of one of each.
        kept: which products, `(K,)`, by falling variance.
        deviations: the masks' standard deviation along each, `(K,)`.
        p: E[M].
    """

    axes: list[Tensor]
    kept: Tensor
    deviations: Tensor
    p: float

    @classmethod
    def of(cls, cells: Cells, shape: tuple[int, ...]) -> "Basis":
        """Return the basis of cell masks on an input of `shape`."""
        vectors, values = [], []
        for axis in cells.axes(shape):
            axis = axis.double()
            value, vector = torch.linalg.eigh((axis @ axis.mT).mean(dim=0))
            # Cells spread over somewhat more coordinates than there are of them, since they shift.
            leading = slice(-min(len(value), axis.shape[2] + 5), None)
            values.append(value[leading].clamp_min(0))
            vectors.append(vector[:, leading].float())
        variance = reduce(torch.outer, values).flatten() if len(values) < 3 else _outer(values)
        variance = variance * cells.p * (1 - cells.p)
        kept = variance.argsort(descending=True)[:MOST]
        kept = kept[variance[kept] > 1e-6 * variance[kept[0]]]
        return cls(vectors, kept, variance[kept].sqrt(), cells.p)

    def features(self, masks: Tensor) -> Tensor:
        """Return the coordinates `(N, K)` of masks `(N, *shape)`: mean 0, variance 1, uncorrelated."""
        rest = masks - self.p
        for axis in self.axes:
            rest = torch.einsum("ns...,sq->n...q", rest, axis.to(rest))
        return rest.flatten(1).cpu().double()[:, self.kept] / self.deviations

    def maps(self, coefficients: Tensor) -> Tensor:
        """Return Cov(⟨coefficients, features⟩, M) / p, `(B, *shape)`, of coefficients `(B, K)`."""
        sizes = [axis.shape[1] for axis in self.axes]
        full = torch.zeros(len(coefficients), math.prod(sizes), dtype=coefficients.dtype)
        full[:, self.kept] = coefficients * self.deviations / self.p
        full = full.view(-1, *sizes)
        for axis in self.axes:
            full = torch.einsum("bq...,sq->b...s", full, axis.to(full))
        return full


@dataclass(frozen=True)
class Regression:
    """All that a linear regression of scores on features needs of the masks seen so far; `+` joins, in any order.

    Means of features `(K,)` and scores `(B,)`; sums of centred products `(K, K)`, `(K, B)` and `(B,)`.
    """

    count: int
    features: Tensor
    scores: Tensor
    gram: Tensor
    cross: Tensor
    squares: Tensor

    @classmethod
    def of(cls, scores: Tensor, features: Tensor) -> "Regression":
        """Summarise scores `(B, N)` and features `(N, K)`."""
        scores = scores.T.cpu().double()
        x, y = features - features.mean(dim=0), scores - scores.mean(dim=0)
        return cls(len(x), features.mean(dim=0), scores.mean(dim=0), x.T @ x, x.T @ y, y.square().sum(dim=0))

    def __add__(self, other: "Regression") -> "Regression":
        count = self.count + other.count
        share, pull = other.count / count, self.count * other.count / count
        x, y = other.features - self.features, other.scores - self.scores
        return Regression(
            count,
            self.features + share * x,
            self.scores + share * y,
            self.gram + other.gram + pull * torch.outer(x, x),
            self.cross + other.cross + pull * torch.outer(x, y),
            self.squares + other.squares + pull * y.square(),
        )

    def fit(self, deviations: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[s] `(B,)` and Cov(s, features) `(B, K)`, the linear part as fitted, the rest as sampled.

        The penalty is on the weight of a pixel, so that coordinates in which masks hardly vary are hardly used; its
        strength is each input's own, by generalised cross-validation.
        """
        scale = (deviations / deviations.max())[:, None]
        values, vectors = torch.linalg.eigh(scale * self.gram * scale.T)
        values, turned = values.clamp_min(0)[:, None], vectors.T @ (scale * self.cross)
        penalties = self.count * torch.logspace(-3, 3, 25, dtype=torch.float64)
        shrunk = 1 / (values + penalties)
        left = self.squares - 2 * shrunk.T @ turned.square() + (values * shrunk.square()).T @ turned.square()
        free = (1 - (1 + (values * shrunk).sum(dim=0)) / self.count).clamp_min(1e-3)
        best = (left / free[:, None].square()).argmin(dim=0)
        weights = scale * (vectors @ (turned * shrunk[:, best]))
        level = self.scores - self.features @ weights
        # The features are known to be uncorrelated, so what the penalty kept out of the weights comes back unbiased.
        return level, (weights + (self.cross - self.gram @ weights) / self.count).T


def _outer(values: list[Tensor]) -> Tensor:
    return torch.cartesian_prod(*values).prod(dim=1)
