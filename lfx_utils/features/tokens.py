"""Which words of a text: token ids have no gradient, so the embeddings that stand for them are explained.

`Embedded` turns an encoder of ids into one of embeddings, to which everything in this package applies: any Captum
method through `LabelFree`, and `decompose` of `pairs`.
"""

from collections.abc import Callable

import torch
from captum.attr import Attribution, IntegratedGradients
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.features.decomposition import Decomposition, decompose
from lfx_utils.features.label_free import LabelFree


class Embedded(nn.Module):
    """An encoder of token ids as a function of the embeddings that it looks up for them.

    While it runs, the output of `layer` is replaced by the embeddings given; positions and all else stay.

    Args:
        encoder: from ids `(B, T)` and further arguments, such as a padding mask, to representations `(B, D)`.
        layer: its module that maps ids to embeddings `(B, T, E)`.
    """

    def __init__(self, encoder: Callable[..., Tensor], layer: nn.Module):
        super().__init__()
        self.encoder, self.layer = encoder, layer
        self.training = getattr(encoder, "training", False)  # `train` would reach into the encoder

    def forward(self, embeddings: Tensor, ids: Tensor, *rest: Tensor) -> Tensor:
        """Map embeddings `(B, T, E)`, with the ids and what else the encoder takes, to `(B, D)`."""
        runs = []

        def replace(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
            runs.append(module)
            return embeddings

        hook = self.layer.register_forward_hook(replace)
        try:
            latents = self.encoder(ids, *rest)
        finally:
            hook.remove()
        if not runs:
            raise ValueError(f"layer must be the one by which the encoder embeds ids; this {self.layer} did not run.")
        return latents


def token_importance(
    encoder: Callable[..., Tensor],
    layer: nn.Module,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    reference: Tensor,
    method: Callable[..., Attribution] = IntegratedGradients,
    **options,
) -> Tensor:
    """Return the label-free importance of every token, `(B, T)`, summed over its embedding.

    By default Integrated Gradients from the reference's embeddings to the text's: a text's importances add up to
    ⟨f(x), f(x) − f(x̄)⟩, with x̄ the reference. Tokens that the reference keeps have importance 0.

    Args:
        encoder: f, in evaluation mode, from ids `(B, T)`, and the mask where there is one, to `(B, D)`.
        layer: its module that maps ids to embeddings.
        ids: `(B, T)`, integers.
        mask: `(B, T)`, 1 for a token and 0 for padding; left out where the encoder takes none.
        reference: `(B, T)`, the ids of the text in which no word is said: another id, such as the padding or the mask
            token's, where a token is to be explained; the same id for special tokens and padding.
        method: as in `LabelFree`; one that takes baselines.
        options: those of `LabelFree.attribute`: `weights`, `n_steps`, `internal_batch_size`, …

    Raises:
        TypeError, ValueError: ids that are no integers or not in the layer's vocabulary, another shape of mask or
            reference, a text of which the reference keeps every token, and what `LabelFree` refuses.

    Source:
        Crabbé & van der Schaar 2022, Definition 2.1, on embeddings as Sundararajan et al. 2017, Section 6.3.
    """
    embedded, inputs, baselines, extra = _embedded(encoder, layer, ids, mask, reference)
    explain = LabelFree(method, embedded).attribute
    found = explain(inputs, baselines, additional_forward_args=extra, **options)
    if isinstance(found, tuple):
        return found[0].sum(dim=-1), found[1]
    return found.sum(dim=-1)


def decompose_tokens(
    encoder: Callable[..., Tensor],
    layer: nn.Module,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    reference: Tensor,
    **options,
) -> Decomposition:
    """Return what each token adds to the representation: `decompose` with one part a token, P = T.

    Args:
        encoder, layer, ids, mask, reference: as in `token_importance`.
        options: those of `decompose`.
    """
    embedded, inputs, baselines, extra = _embedded(encoder, layer, ids, mask, reference)
    parts = torch.arange(ids.shape[1], device=ids.device)[:, None]
    return decompose(embedded, inputs, baselines, parts=parts, additional_forward_args=extra, **options)


def per_word(scores: Tensor, words: Tensor, dim: int = -1) -> Tensor:
    """Add up the scores of each word's tokens: `(…, T, …)` to `(…, W, …)`, W the number of words.

    Args:
        scores: of one text, such as importances `(T,)` or a matrix `(T, U)`.
        words: `(T,)`, the number of the word that each token is part of, −1 where it is part of none.
        dim: the axis of the tokens.

    >>> per_word(torch.tensor([9.0, 1, 2, 4]), torch.tensor([-1, 0, 0, 1]))
    tensor([3., 4.])
    """
    if words.dim() != 1 or scores.shape[dim] != len(words):
        raise ValueError(
            f"words must be (T,) with the {scores.shape[dim]} tokens of scores' axis {dim}, got {tuple(words.shape)}."
        )
    inside = words >= 0
    shape = list(scores.shape)
    shape[dim] = int(words.max()) + 1
    kept = scores.movedim(dim, 0)[inside].movedim(0, dim)
    return scores.new_zeros(shape).index_add(dim, words[inside], kept)


def _embedded(encoder, layer: nn.Module, ids: Tensor, mask: Tensor | None, reference: Tensor) -> tuple:
    """Check what a text's explanation needs; return the encoder of embeddings, both embeddings and the arguments."""
    checks.evaluating(encoder)
    if not isinstance(layer, nn.Module):
        raise TypeError(f"layer must be the encoder's nn.Module for embeddings, got {type(layer).__name__}.")
    for name, each in (("ids", ids), ("reference", reference)):
        checks.tokens(name, each, getattr(layer, "num_embeddings", None))
    for name, each in (("reference", reference), ("mask", mask)):
        if each is not None and each.shape != ids.shape:
            raise ValueError(f"{name} must have the shape of ids, {tuple(ids.shape)}, got {tuple(each.shape)}.")
    inside = torch.ones_like(ids) if mask is None else mask
    if not (explained := ((ids != reference) & (inside != 0)).any(dim=1)).all():
        raise ValueError(f"ids[{int((~explained).nonzero()[0])}] has no token to explain: reference keeps all of them.")
    with torch.no_grad():
        inputs, baselines = layer(ids), layer(reference)
    return Embedded(encoder, layer), inputs, baselines, (ids,) if mask is None else (ids, mask)
