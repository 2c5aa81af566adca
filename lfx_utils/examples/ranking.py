"""From scores to examples: proponents and opponents, and how often they share the test example's class."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Indices of each test example's k most and k least important training examples.

    For the loss-based methods these are its proponents (they lower its loss) and its opponents (they raise it).

    Args:
        scores: `(n_test, n_train)`.
        k: at most n_train. Where scores tie, the lower index comes first.

    Returns:
        `(proponents, opponents)`, int64 `(n_test, k)` each, the strongest first.

    Raises:
        ValueError: scores that are not a finite matrix, or k outside [1, n_train].

    >>> [indices.tolist() for indices in top(torch.tensor([[0.1, 0.7, -0.4]]), 2)]
    [[[1, 0]], [[2, 0]]]
    """
    _check_scores(scores)
    _check_counts(scores, "k", [k])
    return stable_topk(scores, k, largest=True)[1], stable_topk(scores, k, largest=False)[1]


def stable_topk(values: Tensor, k: int, *, largest: bool) -> tuple[Tensor, Tensor]:
    """The k largest or smallest values of each row `(n, N)` and their indices, the lower index first in a tie."""
    found, indices = values.topk(min(k + 1, values.shape[1]), dim=1, largest=largest)
    indices, order = indices[:, :k].sort(dim=1)
    chosen, rank = found[:, :k].gather(1, order).sort(dim=1, descending=largest, stable=True)
    indices = indices.gather(1, rank)
    # Which of several equal values topk returns is its own affair: rows whose last value recurs are sorted.
    for rows in (found[:, k - 1] == found[:, -1]).nonzero().squeeze(1).split(256) if k < values.shape[1] else ():
        indices[rows] = values[rows].sort(dim=1, descending=largest, stable=True).indices[:, :k]
    return chosen, indices


def similarity_rates(
    scores: Tensor, test_labels: Tensor, train_labels: Tensor, counts: Sequence[int] = (1, 2, 5, 10, 20, 50)
) -> tuple[Tensor, Tensor]:
    """Share of each test example's M most and M least important training examples that have its label.

    Args:
        scores: `(n_test, n_train)`.
        test_labels: `(n_test,)`, integers.
        train_labels: `(n_train,)`, integers.
        counts: the values of M, each at most n_train.

    Returns:
        `(most, least)`, `(n_test, len(counts))` each, in [0, 1]; average over the first axis for LF Fig. 3.

    Raises:
        TypeError: labels that are absent or not integers.
        ValueError: labels of another length, unlabelled examples (a negative label), or an M outside [1,
            n_train].

    Source: LF, Section 4.1 and Figure 3.
    """
    _check_scores(scores)
    for name, labels, size in (
        ("test_labels", test_labels, scores.shape[0]),
        ("train_labels", train_labels, scores.shape[1]),
    ):
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            came = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
            raise TypeError(
                f"{name} must be a tensor of integer labels, got {came}: similarity rates need a labelled set."
            )
        if labels.shape != (size,):
            raise ValueError(
                f"{name} must have shape ({size},) to match scores {tuple(scores.shape)}, got {tuple(labels.shape)}."
            )
        if (labels < 0).any():
            raise ValueError(
                f"{name} marks {int((labels < 0).sum())} examples as unlabelled; similarity rates need every label."
            )
    _check_counts(scores, "counts", counts)
    last = torch.as_tensor(counts, device=scores.device) - 1

    def rates(largest: bool) -> Tensor:
        chosen = stable_topk(scores, max(counts), largest=largest)[1]
        hits = (train_labels[chosen] == test_labels[:, None]).cumsum(1)
        return hits[:, last] / (last + 1)

    return rates(True), rates(False)


def _check_scores(scores: Tensor) -> None:
    if not isinstance(scores, Tensor) or scores.dim() != 2 or 0 in scores.shape:
        came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"scores must be a matrix (n_test, n_train), got {came}.")
    # Least and greatest value, which a NaN replaces, take one pass and no memory.
    if not all(math.isfinite(value) for value in torch.aminmax(scores)):
        bad = int((~scores.isfinite()).sum())
        raise ValueError(f"scores must be finite, got {bad} NaN or infinite values out of {scores.numel()}.")


def _check_counts(scores: Tensor, name: str, counts: Sequence[int]) -> None:
    for count in counts:
        if not 1 <= count <= scores.shape[1]:
            raise ValueError(f"{name} must lie between 1 and the {scores.shape[1]} training examples, got {count}.")
