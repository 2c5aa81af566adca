"""Why two inputs are alike: the inner product of their representations, shared out among pairs of their parts.

Each representation is a sum over the parts of its input (see `lfx_utils.features.decomposition`), so the inner product
of two is a sum over pairs of parts. A decomposition belongs to one input: N of them explain N² pairs by products of
matrices.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lfx_utils.features.decomposition import Decomposition


@dataclass(frozen=True)
class Interactions:
    """⟨f(x), f(y)⟩ as Σ_pq matrix_pq + Σ_p alone_x_p + Σ_q alone_y_q + constant + residual, one pair a row.

    The matrix adds up to ⟨f(x) − f(a), f(y) − f(b)⟩, with a and b the baselines. What a part of x shares with y's
    *baseline* is no matter between two parts, and stands for itself: alone_x adds up to ⟨f(x) − f(a), f(b)⟩, alone_y to
    ⟨f(a), f(y) − f(b)⟩, and the constant is ⟨f(a), f(b)⟩. They vanish where baselines have the representation zero.

    Args:
        matrix: `(B, P, Q)`.
        alone_x: `(B, P)`.
        alone_y: `(B, Q)`.
        constant: `(B,)`.
        similarity: ⟨f(x), f(y)⟩ itself, `(B,)`.
    """

    matrix: Tensor
    alone_x: Tensor
    alone_y: Tensor
    constant: Tensor
    similarity: Tensor

    @property
    def to_x(self) -> Tensor:
        """What each part of x adds to the similarity, with whatever in y: `(B, P)`.

        Up to y's residual, the map of `LabelFree` by Integrated Gradients with the weights f(y).
        """
        return self.matrix.sum(dim=2) + self.alone_x

    @property
    def to_y(self) -> Tensor:
        """What each part of y adds to the similarity, `(B, Q)`."""
        return self.matrix.sum(dim=1) + self.alone_y

    @property
    def residual(self) -> Tensor:
        """What the similarity exceeds the sum of all terms by, `(B,)`; it falls with the number of steps."""
        terms = self.matrix.sum(dim=(1, 2)) + self.alone_x.sum(dim=1) + self.alone_y.sum(dim=1) + self.constant
        return self.similarity - terms


def interactions(x: Decomposition, y: Decomposition, *, cosine: bool = False) -> Interactions:
    """Return which parts of x and of y make ⟨f(x), f(y)⟩, one pair a row; a single input meets every row of the other.

    Args:
        x, y: from `decompose`, by one encoder or by two whose representations may be compared.
        cosine: share out the cosine: all terms are divided by ‖f(x)‖ ‖f(y)‖, which is taken as given. To explain the
            lengths too, decompose `Normed(encoder)`, whose inner products are cosines all along the path.

    Raises:
        ValueError: other numbers of rows or of latent units; a representation of norm zero under the cosine.

    >>> from lfx_utils.features.decomposition import decompose
    >>> encoder = torch.nn.Linear(3, 2, bias=False).eval()
    >>> x, y = torch.rand(1, 3), torch.rand(1, 3)
    >>> found = interactions(decompose(encoder, x), decompose(encoder, y))
    >>> torch.allclose(found.matrix[0], x.T * (encoder.weight.T @ encoder.weight) * y, atol=1e-6)
    True
    """
    sizes = {len(x.latents), len(y.latents)} - {1}
    if len(sizes) > 1 or x.latents.shape[1] != y.latents.shape[1]:
        raise ValueError(
            "x and y must have as many rows (or one of them 1) and the same D, "
            f"got {tuple(x.latents.shape)} and {tuple(y.latents.shape)}."
        )
    scale = 1.0
    if cosine:
        scale = 1 / (x.latents.norm(dim=1) * y.latents.norm(dim=1))
        if not torch.isfinite(scale).all():
            raise ValueError("A representation has norm zero, so its cosine to anything is undefined.")
    return Interactions(
        torch.einsum("bpd,bqd->bpq", *_paired(x.parts, y.parts)) * _column(scale, 2),
        torch.einsum("bpd,bd->bp", *_paired(x.parts, y.baseline)) * _column(scale, 1),
        torch.einsum("bd,bqd->bq", *_paired(x.baseline, y.parts)) * _column(scale, 1),
        (x.baseline * y.baseline).sum(dim=1) * scale,
        (x.latents * y.latents).sum(dim=1) * scale,
    )


def _paired(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    size = max(len(one), len(other))
    return one.expand(size, *one.shape[1:]), other.expand(size, *other.shape[1:])


def _column(scale, axes: int):
    return scale.view(-1, *[1] * axes) if isinstance(scale, Tensor) else scale
