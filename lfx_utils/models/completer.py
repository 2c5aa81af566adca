"""A compact Completer: two autoencoders whose codes agree and predict one another; and how clusters are judged."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.functional import mse_loss

TINY = 1e-9  # the least probability of which a logarithm is taken


class Completer(nn.Module):
    """Two encoders, one a view, whose softmax codes stand side by side as the representation of a pair.

    The losses are the paper's; the networks are narrower and shallower than the released code's, which have three
    hidden layers of 1,024 units and 64 symbols.

    Args:
        latent: d, entries of one view's code, a distribution over d symbols.
        width: of the hidden layers.
        shape: of one view, without the batch.

    Source: Lin, Gou, Liu, Li, Lv & Peng (2021), "COMPLETER: Incomplete multi-view clustering".

    >>> model = Completer(latent=5, width=8).eval()
    >>> first, second = torch.rand(2, 3, 1, 28, 28)
    >>> model(first, second).shape, model(first).shape
    (torch.Size([3, 10]), torch.Size([3, 10]))
    """

    def __init__(self, latent: int = 10, width: int = 256, shape: tuple[int, ...] = (1, 28, 28)):
        super().__init__()
        self.shape = shape
        size = int(np.prod(shape))

        def twice(make):
            return nn.ModuleList([make(), make()])

        self.encoders = twice(lambda: _layers(size, width, latent, nn.Softmax(dim=1)))
        self.decoders = twice(lambda: _layers(latent, width, size, nn.Sigmoid()))
        self.predictors = twice(lambda: _layers(latent, width // 2, latent, nn.Softmax(dim=1)))

    def codes(self, first: Tensor | None, second: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both views' codes `(B, d)`; that of a missing view is predicted from the other's.

        Args:
            first, second: `(B, *shape)`, at most one of them None.

        Raises:
            ValueError: both missing, views of another shape, or more of one than of the other.
        """
        views = {name: view for name, view in (("first", first), ("second", second)) if view is not None}
        if not views:
            raise ValueError("first and second are both None; at least one view is needed to complete the other.")
        for name, view in views.items():
            if view.shape[1:] != self.shape:
                raise ValueError(f"{name} must have shape (B, {str(self.shape)[1:]}, got {tuple(view.shape)}.")
        if len({len(view) for view in views.values()}) > 1:
            raise ValueError(f"first and second must be pairs, got {len(first)} of one and {len(second)} of the other.")
        one = None if first is None else self.encoders[0](first.flatten(1))
        other = None if second is None else self.encoders[1](second.flatten(1))
        return (
            self.predictors[1](other) if one is None else one,
            self.predictors[0](one) if other is None else other,
        )

    def forward(self, first: Tensor | None = None, second: Tensor | None = None) -> Tensor:
        """Return the fused representation `(B, 2d)` of pairs, or of what is left of them."""
        return torch.cat(self.codes(first, second), dim=1)

    def loss(self, first: Tensor, second: Tensor, alpha: float = 9.0, weight: float = 0.1) -> Tensor:
        """Return L = −(I + α(H₁ + H₂)) + λ (prediction errors) + λ (reconstruction errors), a scalar.

        Args:
            first, second: complete pairs, `(B, *shape)`.
            alpha: of the entropies, without which all pairs may share one symbol.
            weight: λ, of both kinds of error; 0.1 and α = 9 are the released code's for Noisy MNIST.

        Source: Lin et al. (2021), the contrastive, dual prediction and reconstruction losses.
        """
        one, other = self.codes(first, second)
        predicted = mse_loss(self.predictors[0](one), other) + mse_loss(self.predictors[1](other), one)
        pairs = zip(self.decoders, (one, other), (first, second), strict=True)
        rebuilt = sum(mse_loss(decoder(code), view.flatten(1)) for decoder, code, view in pairs)
        return weight * (predicted + rebuilt) - information(joint(one, other), alpha)


def joint(first: Tensor, second: Tensor) -> Tensor:
    """Return the joint distribution `(d, d)` of two views' symbols, made symmetric, from codes `(B, d)` of pairs."""
    table = first.mT @ second / len(first)
    return (table + table.mT) / 2


def information(table: Tensor, alpha: float = 0.0) -> Tensor:
    """Return I(Z₁; Z₂) + α (H(Z₁) + H(Z₂)) in nats, from the joint distribution `(d, d)` of Z₁ and Z₂.

    >>> independent, equal = torch.full((2, 2), 0.25), torch.eye(2) / 2
    >>> [round(information(table).item(), 4) for table in (independent, equal)]
    [0.0, 0.6931]
    """
    marginals = table.sum(dim=1, keepdim=True) * table.sum(dim=0, keepdim=True)
    return (table * (table.clamp_min(TINY).log() - (1 + alpha) * marginals.clamp_min(TINY).log())).sum()


def named(clusters, labels) -> np.ndarray:
    """Return the label that each example's cluster stands for, `(N,)`, one cluster a label, so that most are right.

    Clustering accuracy is the share of examples that get their own label.

    Args:
        clusters, labels: integers `(N,)`, from 0.

    Raises:
        ValueError: no examples, or not as many of one as of the other.

    >>> named([2, 2, 0, 1, 1, 1], [0, 0, 1, 2, 2, 1])
    array([0, 0, 1, 2, 2, 2])
    """
    clusters, labels = np.asarray(clusters), np.asarray(labels)
    if clusters.shape != labels.shape or clusters.ndim != 1 or not clusters.size:
        raise ValueError(f"clusters and labels must be one each an example, got {clusters.shape} and {labels.shape}.")
    size = int(max(clusters.max(), labels.max())) + 1
    together = np.zeros((size, size), dtype=int)
    np.add.at(together, (clusters, labels), 1)
    _, match = linear_sum_assignment(-together)
    return match[clusters]


def _layers(entry: int, width: int, leave: int, last: nn.Module) -> nn.Sequential:
    """Three linear layers, batch norm after each."""
    layers = []
    for size, following in ((entry, width), (width, width)):
        layers += [nn.Linear(size, following), nn.BatchNorm1d(following), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, leave), nn.BatchNorm1d(leave), last)
