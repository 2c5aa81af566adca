"""One in-memory training loop: mini-batches, early stopping, snapshots, a progress bar, a checkpoint to resume from."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from lfx_utils.progress import tqdm


@dataclass
class History:
    """What happened during a `fit`: losses by epoch, the best epoch (from 0), seconds, and any snapshots."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    snapshots: list[dict[str, Tensor]] = field(default_factory=list)


def fit(
    model: nn.Module,
    loss: Callable[..., Tensor],
    data: tuple[Tensor, ...],
    *,
    epochs: int,
    batch_size: int = 100,
    optimiser: torch.optim.Optimizer | None = None,
    validation: tuple[Tensor, ...] | None = None,
    patience: int | None = None,
    snapshot_every: int | None = None,
    checkpoint: Path | None = None,
    seed: int = 0,
    name: str = "training",
) -> History:
    """Train `model` in place on tensors that fit in memory, and leave it in evaluation mode.

    Args:
        model: trained in place; with `validation` it ends with the weights of its best epoch.
        loss: `loss(model, *batch)` returns a scalar, the mean over the batch.
        data: tensors of equal length N; each batch holds the same rows of every one.
        epochs: passes over the data, at most.
        batch_size: rows a step; a last batch of a single row is skipped, since batch norm cannot use it.
        optimiser: default Adam with learning rate 1e-3, as in the papers.
        validation: tensors as `data`; their loss is measured in evaluation mode after each epoch.
        patience: epochs without improvement of the validation loss before stopping.
        snapshot_every: keep a copy of the parameters every so many epochs (TracIn's checkpoints).
        checkpoint: file to save to after every epoch; if it exists, training resumes from it and ends the same.
        seed: decides the order of the batches and, through the global generator, any noise in the loss.
        name: label of the progress bar.

    Raises:
        ValueError: tensors of unequal length, no data, or patience without validation data.
        FloatingPointError: the loss is no longer finite; the model keeps its last finite epoch.
    """
    lengths = {len(tensor) for tensor in data}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"data must hold non-empty tensors of equal length, got lengths {[len(t) for t in data]}.")
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data to watch; pass validation=…")
    (size,) = lengths
    optimiser = optimiser or torch.optim.Adam(model.parameters(), lr=1e-3)
    history, best, first = History(), (math.inf, None), 0
    if checkpoint and Path(checkpoint).exists():
        history, best, first = _resume(Path(checkpoint), model, optimiser)

    start = time.perf_counter() - history.seconds
    for epoch in (bar := tqdm(range(first, epochs), initial=first, total=epochs, desc=name)):
        if patience is not None and epoch - history.best_epoch > patience:
            break
        before = copy.deepcopy(model.state_dict())
        # The loss draws its noise from the global generator: seeded here, a resumed run equals an uninterrupted one.
        torch.manual_seed(seed * 1_000_003 + epoch)
        model.train()
        total, seen = 0.0, 0
        for rows in torch.randperm(size).split(batch_size):
            if len(rows) == 1 < min(size, batch_size):  # batch norm cannot learn from a last single row
                continue
            value = loss(model, *(tensor[rows] for tensor in data))
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            total, seen = total + value.item() * len(rows), seen + len(rows)
        if not math.isfinite(total):
            model.load_state_dict(before)
            model.eval()
            raise FloatingPointError(
                f"{name}: the loss is {total} in epoch {epoch + 1}; the last finite weights are kept."
            )
        history.train.append(total / seen)
        if validation is not None:
            history.validation.append(evaluate(model, loss, validation, seed=seed))
            if history.validation[-1] < best[0]:
                best, history.best_epoch = (history.validation[-1], copy.deepcopy(model.state_dict())), epoch
        if snapshot_every and (epoch + 1) % snapshot_every == 0:
            history.snapshots.append(copy.deepcopy(model.state_dict()))
        history.seconds = time.perf_counter() - start
        bar.set_postfix(loss=f"{history.train[-1]:.4f}")
        if checkpoint:
            _save(Path(checkpoint), model, optimiser, history, best, epoch + 1)
    if best[1] is not None:
        model.load_state_dict(best[1])
    model.eval()
    return history


@torch.no_grad()
def evaluate(
    model: nn.Module, loss: Callable[..., Tensor], data: tuple[Tensor, ...], *, batch_size: int = 1_000, seed: int = 0
) -> float:
    """Mean loss in evaluation mode, with the same noise at every call; the model's mode is restored."""
    training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batches = zip(*(tensor.split(batch_size) for tensor in data))
        total = sum(loss(model, *batch).item() * len(batch[0]) for batch in batches)
    model.train(training)
    return total / len(data[0])


def _save(path: Path, model, optimiser, history: History, best, epoch: int) -> None:
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "history": vars(history),
        "best": best,
        "epoch": epoch,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    part.replace(path)


def _resume(path: Path, model, optimiser):
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except Exception as error:
        raise ValueError(
            f"checkpoint {path} does not fit this model or is damaged ({error}); delete it to start afresh."
        ) from error
    return History(**state["history"]), state["best"], state["epoch"]
