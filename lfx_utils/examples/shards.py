"""Training sets that do not fit into memory: the best of each batch, joined batch by batch and shard by shard."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from lfx_utils import checks
from lfx_utils.examples.neighbours import nearest
from lfx_utils.examples.ranking import stable_topk
from lfx_utils.examples.representation import check_representations
from lfx_utils.training import resume


class Best(NamedTuple):
    """Scores and training indices of each test example's best, `(n_test, k)` each, the best first."""

    values: Tensor
    indices: Tensor


Search = Callable[[Tensor, int, Tensor | None], tuple[Tensor, Tensor]]


def scored(score: Callable[[Tensor], Tensor]) -> Search:
    """Search by scores: `score` maps a batch of training examples `(b, …)` to `(n_test, b)`, the higher the better.

    For TracIn, `scored(lambda batch: tracin(model, loss, checkpoints, test, batch))`; with a minus sign it finds
    opponents. The test examples' gradients are computed anew for each batch, so let batches be larger than `test`.
    """

    def search(batch: Tensor, k: int, least: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scores = score(batch)
        if not isinstance(scores, Tensor) or scores.dim() != 2 or scores.shape[1] != len(batch):
            came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"score must return (n_test, {len(batch)}), a column for each example, got {came}.")
        return stable_topk(scores, min(k, len(batch)), largest=True)

    return search


def near(h_test: Tensor, encoder: Callable[[Tensor], Tensor] | None = None) -> Search:
    """Search by distance, as DKNN does: the values are minus the distances to the representations `(n_test, D)`.

    Args:
        h_test: `(n_test, D)`.
        encoder: makes representations `(b, D)` of a batch, as `lambda x: represent(f, x)`; left out, batches hold them.
    """

    def search(batch: Tensor, k: int, least: Tensor | None = None) -> tuple[Tensor, Tensor]:
        points, others = check_representations(h_test, encoder(batch) if encoder else batch)
        distance, index = nearest(points, others, min(k, len(others)), None if least is None else -least)
        return -distance, index

    return search


def shard(
    search: Search,
    batches: Tensor | Dataset | Iterable,
    k: int,
    *,
    start: int = 0,
    batch_size: int = 5_000,
    checkpoint: Path | str | None = None,
) -> Best:
    """Find the k best training examples of each test example among those that come in batches.

    No more than one batch and the best so far are held at once.

    Args:
        search: `near(…)`, `scored(…)`, or a function of a batch `(b, …)`, of k, and of the least value of the best so
            far `(n_test,)`, `None` while there are fewer than k. It returns values and their places in the batch,
            `(n_test, min(k, b))` each, the best first; values at or below the least need not be right.
        batches: training examples as a tensor, a `Dataset`, or an iterable of batches such as a `DataLoader`, always
            in the same order. Of items that are tuples, such as images with labels, the first part counts.
        k: how many to keep; where there are fewer examples, all.
        start: index of the first example, if the batches are a shard of a larger set.
        batch_size: of a tensor's or a data set's batches.
        checkpoint: file that the best so far are written to, at most once a second and at the end. Where it holds
            this run, its batches are only looked at, and the search goes on behind them. A file of another run is
            refused: the first batch is searched again and must give what it gave, and the others must be the same.

    Returns:
        Values and indices `(n_test, k)`, the lower index first where values tie.

    Raises:
        TypeError, ValueError: a loader that shuffles, no batches, batches that are not finite, values that are not,
            or a file of another run.
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be at least 1, got {k!r}.")
    best, marks, done, written = None, [], (), time.monotonic()
    for batch in _batches(batches, batch_size):
        checks.batch("batches", batch)
        number, mark = len(marks), _mark(batch)
        marks.append(mark)
        if number and number < len(done):
            if not torch.allclose(mark, done[number], rtol=1e-9):
                raise ValueError(f"checkpoint {checkpoint} is another run's: batch {number} is not the one it saw.")
            start += len(batch)
            continue
        full = best is not None and best.values.shape[1] == k
        found = _checked(search(batch, k, best.values[:, -1] if full else None), len(batch), k)
        if not number:
            run = {"k": k, "start": start, "first batch": mark, "search": found.values}
            state = resume.opened(checkpoint, run) if checkpoint else {}
            done = state.get("marks", ())
        best = Best(state["values"], state["indices"]) if not number and state else _joined(best, found, start, k)
        start += len(batch)
        if checkpoint and len(marks) > len(done) and time.monotonic() - written > 1:
            resume.save(checkpoint, run, marks=torch.stack(marks), **best._asdict())
            written = time.monotonic()
    if best is None:
        raise ValueError("batches is empty; at least one batch is needed.")
    if len(marks) < len(done):
        raise ValueError(f"checkpoint {checkpoint} has seen {len(done)} batches, and there are {len(marks)} only.")
    if checkpoint:
        resume.save(checkpoint, run, marks=torch.stack(marks), **best._asdict())
    return best


def merge(parts: Sequence[Best], k: int | None = None) -> Best:
    """Join what shards found: the k best of all, the lower index first where values tie.

    Args:
        parts: of the same test examples, in any order.
        k: how many to keep; left out, as many as the part with the most.

    Raises:
        ValueError: parts with other numbers of test examples, or that have a training example in common.
    """
    if not parts or len({len(part.values) for part in parts}) > 1:
        sizes = sorted({len(part.values) for part in parts})
        raise ValueError(f"parts must hold the same test examples, got {sizes or 'none'} of them.")
    values, indices = (torch.cat(each, 1) for each in zip(*parts, strict=True))
    indices, order = indices.sort(dim=1)
    if (indices[:, 1:] == indices[:, :-1]).any():
        raise ValueError("parts have training examples in common; give each shard its own start.")
    k = max(part.values.shape[1] for part in parts) if k is None else k
    values, chosen = stable_topk(values.gather(1, order), min(k, values.shape[1]), largest=True)
    return Best(values, indices.gather(1, chosen))


def _batches(batches: Tensor | Dataset | Iterable, batch_size: int) -> Iterator[Tensor]:
    if isinstance(batches, Tensor):
        yield from batches.split(batch_size)
        return
    if isinstance(batches, Dataset) and not isinstance(batches, IterableDataset):
        batches = DataLoader(batches, batch_size)
    if isinstance(getattr(batches, "sampler", None), RandomSampler):
        raise ValueError("batches is a DataLoader that shuffles, so that indices mean nothing; pass shuffle=False.")
    for batch in batches:
        yield batch[0] if isinstance(batch, tuple | list) else batch


def _mark(batch: Tensor) -> Tensor:
    """Two numbers by which a batch is known again, at little cost."""
    return torch.stack([batch.mean(dtype=torch.double), torch.linalg.vector_norm(batch, dtype=torch.double)]).cpu()


def _checked(found: tuple[Tensor, Tensor], size: int, k: int) -> Best:
    values, indices = found
    if values.shape != indices.shape or values.shape[1] != min(k, size) or not checks.all_finite(values):
        raise ValueError(
            f"search must return finite values and indices, (n_test, {min(k, size)}) each, got shapes "
            f"{tuple(values.shape)} and {tuple(indices.shape)}."
        )
    return Best(values.detach().cpu(), indices.cpu())


def _joined(best: Best | None, found: Best, start: int, k: int) -> Best:
    moved = Best(found.values, found.indices + start)
    return moved if best is None else merge([best, moved], k)
