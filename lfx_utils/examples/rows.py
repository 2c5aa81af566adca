"""Matrices of gradients whose columns for linear layers stay factored, and their inner products."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Rows:
    """R gradients, rows of a matrix `(R, P)`: a linear layer's columns as outer products δ ⊗ (a, 1)."""

    dense: Tensor
    outer: list[tuple[Tensor, Tensor]]

    def __len__(self) -> int:
        return len(self.dense)


def inner(first: Rows, second: Rows) -> Tensor:
    """Inner products of all rows of one matrix with all rows of the other, `(R₁, R₂)`.

    A linear layer contributes ⟨δ, δ'⟩⟨a, a'⟩, which never forms its gradient: for the MNIST encoder of LF
    Table 5 that leaves 6 of 43 thousand columns to multiply.
    """
    total = first.dense @ second.dense.T
    for (delta, activation), (other_delta, other_activation) in zip(first.outer, second.outer, strict=True):
        total.addcmul_(delta @ other_delta.T, activation @ other_activation.T)
    return total


def stack(parts: list[Rows]) -> Rows:
    """Put matrices of rows on top of each other."""
    pairs = zip(*(part.outer for part in parts), strict=True)
    outer = [tuple(torch.cat(column) for column in zip(*layer, strict=True)) for layer in pairs]
    return Rows(torch.cat([part.dense for part in parts]), outer)


def columns(by_weight: dict[str, Tensor], rows: int, like: Tensor) -> Tensor:
    """Flatten gradients by parameter to `(rows, P')`, also where there are none."""
    return torch.cat([like.new_zeros(rows, 0), *(gradient.reshape(rows, -1) for gradient in by_weight.values())], 1)


def with_bias(layer: nn.Linear, activation: Tensor) -> Tensor:
    """A linear layer's inputs `(n, in)`, with a one for its bias."""
    return activation if layer.bias is None else F.pad(activation, (0, 1), value=1.0)
