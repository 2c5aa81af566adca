"""RELAX over the words of a text: a word is hidden by another token in its place, or taken out."""

from collections.abc import Callable

import torch
from torch import Tensor

from lfx_utils import checks
from lfx_utils.relax.explainer import RELAX
from lfx_utils.relax.masks import Masks, Pixels

HALF = Pixels(0.5)
REMOVED = -1  # In place of an id; no vocabulary has it.


def relax_words(
    encoder: Callable[[Tensor, Tensor], Tensor],
    ids: Tensor,
    mask: Tensor,
    words: Tensor,
    *,
    hide_with: int | None = None,
    masks: Masks = HALF,
    estimator: str = "ratio",
    return_uncertainty: bool = False,
    n_masks: int = 1_000,
    **options,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return how similar the representation stays while each word is kept and others are hidden, `(B, W)`.

    The tokens of a word go together. NaN fills the rows of texts that have fewer than W words.

    Args:
        encoder: f, in evaluation mode, from ids `(B, T)` and a padding mask `(B, T)` to representations `(B, D)`.
        ids: `(B, T)`.
        mask: `(B, T)`, 1 for a token and 0 for padding.
        words: `(B, T)`, the number of the word that each token is part of, from 0 in each text; −1 where it is part
            of none, as special tokens are, which always stay.
        hide_with: the id of the token that stands where a word was hidden, such as the mask token's. Left out, a word
            is taken out and the rest moves together.
        masks: over words; see `lfx_utils.relax.masks`.
        estimator, return_uncertainty, n_masks: as in `RELAX.attribute`.
        options: `similarity`, and those of `RELAX.evidence`: `seed`, `internal_batch_size`, …

    Raises:
        TypeError, ValueError: ids, mask or words of another shape or kind, a text without a word, and what `RELAX`
            refuses.

    Source:
        Wickstrøm et al. 2023, Section 3, with words in the place of pixels.
    """
    checks.evaluating(encoder)
    for name, each in (("ids", ids), ("mask", mask), ("words", words)):
        checks.tokens(name, each)
        if each.shape != ids.shape:
            raise ValueError(f"{name} must have the shape of ids, {tuple(ids.shape)}, got {tuple(each.shape)}.")
    counts = words.amax(dim=1) + 1
    if not counts.all():
        raise ValueError(f"words[{int((counts == 0).nonzero()[0])}] names no word: there is nothing to hide.")
    about = {"similarity": options.pop("similarity")} if "similarity" in options else {}
    found = ids.new_full((2, len(ids), int(counts.max())), 0, dtype=torch.float32) + torch.nan
    for row, (text, inside, word) in enumerate(zip(ids, mask.bool(), words)):
        text, word = text[inside], word[inside]
        hidden = torch.where(word < 0, text, REMOVED if hide_with is None else hide_with)
        relax = RELAX(
            _reading(encoder, text), _together(masks, word), fill=hidden[None, :, None].double(), dims=(1,), **about
        )
        rows = text[None, :, None].double()
        maps = relax.attribute(rows, estimator=estimator, return_uncertainty=True, n_masks=n_masks, **options)
        first = [int((word == number).nonzero()[0]) for number in range(int(word.max()) + 1)]
        found[:, row, : len(first)] = torch.stack(maps)[:, 0, first, 0].to(found)
    return (found[0], found[1]) if return_uncertainty else found[0]


def _reading(encoder: Callable[[Tensor, Tensor], Tensor], text: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the encoder of ids that came as numbers `(R, T, 1)`, those removed closed up."""

    def read(rows: Tensor) -> Tensor:
        ids = rows[..., 0].long()
        there = ids != REMOVED
        order = (~there).to(torch.uint8).argsort(dim=1, stable=True)
        there = there.gather(1, order)
        # What stands under padding is arbitrary; the text's first token is in every vocabulary.
        return encoder(ids.gather(1, order).where(there, text[0]), there.long())

    return read


def _together(masks: Masks, word: Tensor) -> Masks:
    """Return masks over a text's tokens from masks over its words."""

    def draw(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        drawn = masks(count, (int(word.max()) + 1,), generator)
        return drawn[:, word.clamp_min(0)].where(word >= 0, 1.0)

    return draw
