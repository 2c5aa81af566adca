"""One in-memory training loop: mini-batches, early stopping, snapshots, a progress bar, a checkpoint to resume from."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.progress import tqdm
from lfx_utils.training import resume


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
    checkpoint: Path | str | None = None,
    run: Mapping | None = None,
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
        optimiser: of the model's parameters; default Adam with learning rate 1e-3, as in the papers.
        validation: tensors as `data`; their loss is measured in evaluation mode after each epoch.
        patience: epochs without improvement of the validation loss before stopping.
        snapshot_every: keep a copy of the parameters every so many epochs (TracIn's checkpoints).
        checkpoint: file to save to after every epoch; where it holds this run, training resumes from it and ends the
            same. It belongs to the run: to its data, first weights, loss, optimiser, seed and settings, of which only
            `epochs` may grow.
        run: what else tells this run from others, by name, such as the checksum of an encoder that the loss uses.
        seed: decides the order of the batches and, through the global generator, any noise in the loss.
        name: label of the progress bar.

    Raises:
        ValueError: tensors that are empty, not finite or of unequal length, patience without validation data, another
            model's optimiser, settings below 1, or a checkpoint that is another run's, damaged or not writable.
        FloatingPointError: the loss or a weight is no longer finite; the model keeps its last finite epoch.
    """
    size = _rows("data", data)
    if validation is not None:
        _rows("validation", validation)
        if len(validation) != len(data):
            raise ValueError(f"validation must hold as many tensors as data, {len(data)}, got {len(validation)}.")
    elif patience is not None:
        raise ValueError("patience needs validation data to watch; pass validation=…")
    checks.counts(epochs=epochs, batch_size=batch_size)
    optimiser = optimiser or torch.optim.Adam(model.parameters(), lr=1e-3)
    _trains(optimiser, model)
    history, best, first = History(), (math.inf, None), 0
    if checkpoint:
        run = dict(run or {}) | {
            "data": resume.checksum(data),
            "validation": resume.checksum(validation),
            "first weights": resume.checksum(model.state_dict()),
            "loss": _first_loss(model, loss, [tensor[:batch_size].clone() for tensor in data], seed),
            "optimiser": repr(optimiser),
            "batch_size": batch_size,
            "patience": patience,
            "snapshot_every": snapshot_every,
            "seed": seed,
        }
        if state := resume.opened(checkpoint, run, epochs):
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            # What is drawn after the training is the same, too, where no epoch is left to be done.
            torch.set_rng_state(state["generator"])
            history, best, first = History(**state["history"]), state["best"], state["epoch"]

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
        watched = None if validation is None else evaluate(model, loss, validation, seed=seed)
        if broken := _broken(model, total / seen, watched):
            model.load_state_dict(before)
            model.eval()
            raise FloatingPointError(f"{name}: {broken} in epoch {epoch + 1}; the last finite weights are kept.")
        history.train.append(total / seen)
        if watched is not None:
            history.validation.append(watched)
            if history.validation[-1] < best[0]:
                best, history.best_epoch = (history.validation[-1], copy.deepcopy(model.state_dict())), epoch
        if snapshot_every and (epoch + 1) % snapshot_every == 0:
            history.snapshots.append(copy.deepcopy(model.state_dict()))
        history.seconds = time.perf_counter() - start
        bar.set_postfix(loss=f"{history.train[-1]:.4f}")
        if checkpoint:
            parts = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "history": vars(history)}
            resume.save(checkpoint, run, **parts, best=best, epoch=epoch + 1, generator=torch.get_rng_state())
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
        # Copies, since a model may work in place, and a part of a tensor is no copy.
        total = sum(loss(model, *(each.clone() for each in batch)).item() * len(batch[0]) for batch in batches)
    model.train(training)
    return total / len(data[0])


def _rows(name: str, tensors: tuple[Tensor, ...]) -> int:
    """Return the common length of non-empty tensors without NaN or infinite values."""
    lengths = [len(tensor) for tensor in tensors]
    if len(set(lengths)) != 1 or 0 in lengths:
        raise ValueError(f"{name} must hold non-empty tensors of equal length, got lengths {lengths}.")
    for place, tensor in enumerate(tensors):
        checks.finite(f"{name}[{place}]", tensor)
    return lengths[0]


def _trains(optimiser, model: nn.Module) -> None:
    own = {id(parameter) for parameter in model.parameters()}
    groups = getattr(optimiser, "param_groups", [])
    if groups and not any(id(parameter) in own for group in groups for parameter in group["params"]):
        raise ValueError("optimiser must hold parameters of the model; it has none of them, so nothing would train.")


def _first_loss(model: nn.Module, loss: Callable[..., Tensor], batch: list[Tensor], seed: int) -> Tensor:
    """Return the loss of a batch and its gradient's norms, by which two runs differ; the model stays as it was."""
    before = copy.deepcopy(model.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value = loss(model, *batch)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(value, weights, allow_unused=True)
    model.load_state_dict(before)
    norms = [gradient.norm() for gradient in gradients if gradient is not None]
    return torch.stack([each.detach().float().cpu() for each in (value, *norms)])


def _broken(model: nn.Module, trained: float, watched: float | None) -> str:
    if not math.isfinite(trained):
        return f"the loss is {trained}"
    if watched is not None and not math.isfinite(watched):
        return f"the validation loss is {watched}"
    return "" if all(weight.isfinite().all() for weight in model.parameters()) else "a weight is not finite"
