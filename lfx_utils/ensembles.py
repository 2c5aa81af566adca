"""Train many small models of one architecture at once, each as if it were alone."""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm.auto import tqdm

Stack = dict[str, Tensor]  # parameters by name, each with the models as first axis
VALIDATION = 1_000_002  # the epoch whose draws are the validation's noise; no training has so many


@dataclass
class Record:
    """What happened to one model: losses by epoch, the epoch whose weights it has (from 0), and why it stopped early."""

    name: str
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    stopped: str = ""


def build(make: Callable[[], nn.Module], seeds: Sequence[int]) -> list[nn.Module]:
    """Make one model a seed; the global generator is left as it was."""
    models = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            models.append(make())
    return models


def draws(seed: int, epoch: int, size: int, noise: int) -> tuple[Tensor, Tensor]:
    """The order `(N,)` in which one model sees its examples in an epoch, and their noise `(N, D)`, in that order."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(size, generator=generator), torch.randn(size, noise, generator=generator)


def fit(
    models: Sequence[nn.Module],
    loss: Callable[..., Tensor],
    data: Tensor,
    *,
    seeds: Sequence[int],
    noise: int,
    epochs: int,
    settings: tuple[Sequence[float], ...] = (),
    batch_size: int = 100,
    validation: Tensor | None = None,
    patience: int | None = None,
    prepare: Callable[[Tensor], Tensor] = lambda rows: rows,
    names: Sequence[str] | None = None,
    checkpoint: Path | None = None,
    together: bool | None = None,
) -> list[Record]:
    """Train all models in place with Adam (learning rate 1e-3, weight decay 1e-5) and leave them in evaluation mode.

    The parameters are stacked, Adam steps the stacks, and every model has its own order of examples and its own noise, so
    that each ends as it would have ended alone. A model that stops is taken out of the stacks and the others go on:
    after `patience` epochs without a better validation loss, or when its loss or a weight is no longer finite (it is
    warned about by name, and keeps its best weights so far).

    Args:
        models: M modules of one architecture, on one device, without buffers (batch statistics would mix).
        loss: `loss(model, inputs, noise, *setting)` returns a scalar, the mean over the batch.
        data: first axis N: inputs, or whatever `prepare` makes inputs of (indices of sprites, say).
        seeds: one a model, of order and noise (`draws`).
        noise: how many standard normal numbers each example gets.
        epochs: passes over the data, at most.
        settings: each holds one number a model, such as its β.
        batch_size: examples a step and model; a last batch of a single one is skipped.
        validation: as `data`; each model ends with the weights of its best epoch, else of its last.
        patience: see above; needs `validation`.
        prepare: maps rows of `data` `(B, …)` to inputs `(B, …)`, batch by batch.
        names: one a model, for messages.
        checkpoint: file to save to after every epoch; if it exists, training resumes from it and ends the same.
        together: one batched pass for all models rather than one pass a model. Default: on a GPU, where it pays.

    Returns:
        one record a model.

    Raises:
        ValueError: models that differ or hold buffers, lists of another length than M, too little data, patience
            without validation, or a checkpoint of another run.

    Source: LF, App. C.3 (optimiser, epochs, patience).
    """
    names = list(names or (f"model {number}" for number in range(len(models))))
    _check(models, data, names=names, seeds=seeds, **{f"settings[{n}]": values for n, values in enumerate(settings)})
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data to watch; pass validation=…")
    template, stack = copy.deepcopy(models[0]).to("meta"), stack_module_state(list(models))[0]
    device = next(iter(stack.values())).device
    together = device.type != "cpu" if together is None else together
    columns = [torch.as_tensor(values, dtype=torch.float32, device=device) for values in settings]
    data, validation = data.to(device), None if validation is None else validation.to(device)
    run = _Run(stack, [Record(name) for name in names])
    plan = [names, [int(seed) for seed in seeds], [values.tolist() for values in columns], len(data), batch_size, noise]
    if checkpoint and Path(checkpoint).exists():
        run.resume(Path(checkpoint), plan)

    def single(parameters, inputs, eps, *setting):
        return loss(lambda *args: functional_call(template, parameters, args), inputs, eps, *setting)

    def batches(epoch: int, rows: Tensor):
        drawn = [draws(seeds[model], epoch, len(rows), noise) for model in run.alive]
        order, eps = (torch.stack(parts).to(device) for parts in zip(*drawn, strict=True))
        setting = [values[run.alive] for values in columns]
        for part, numbers in zip(order.split(batch_size, 1), eps.split(batch_size, 1), strict=True):
            if part.shape[1] > 1:
                yield prepare(rows[part.flatten()]).unflatten(0, part.shape), numbers, *setting

    steps = math.ceil(len(data) / batch_size) - (len(data) % batch_size == 1)
    with tqdm(total=epochs * steps, initial=run.epoch * steps, desc="ensemble", leave=False) as bar:
        while run.epoch < epochs and run.alive:
            trained, watched = _Mean(), _Mean()
            for stacked in batches(run.epoch, data):
                values, slopes = _slopes(single, together, run.stack, *stacked)
                run.step(slopes)
                trained.add(values, stacked[1].shape[1])
                bar.update()
            if validation is not None:
                for stacked in batches(VALIDATION, validation):
                    with torch.no_grad():
                        watched.add(_values(single, together, run.stack, *stacked), stacked[1].shape[1])
            run.judge(trained.value, watched.value, patience)
            bar.set_postfix(training=len(run.alive))
            if checkpoint:
                run.save(Path(checkpoint), plan)
    for number, model in enumerate(models):
        model.load_state_dict({name: values[number] for name, values in run.kept.items()})
        model.eval()
    return run.records


def _values(single, together: bool, stack: Stack, *stacked: Tensor) -> Tensor:
    """Losses of all models, `(M,)`."""
    if together:
        return vmap(single)(stack, *stacked)
    return torch.stack([single(_own(stack, place), *(part[place] for part in stacked)) for place in range(len(stacked[0]))])


def _slopes(single, together: bool, stack: Stack, *stacked: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Losses `(M,)`, and their gradients in the order of the stacks."""
    if together:
        values = vmap(single)(stack, *stacked)
        return values.detach(), list(torch.autograd.grad(values.sum(), list(stack.values())))
    values, slopes = [], []
    for place in range(len(stacked[0])):
        own = {name: value.requires_grad_() for name, value in _own(stack, place).items()}
        values.append(single(own, *(part[place] for part in stacked)))
        slopes.append(torch.autograd.grad(values[-1], list(own.values())))
    return torch.stack(values).detach(), [torch.stack(parts) for parts in zip(*slopes, strict=True)]


def _own(stack: Stack, place: int) -> Stack:
    return {name: value[place].detach() for name, value in stack.items()}


class _Mean:
    """A mean over batches of unequal size."""

    def __init__(self):
        self.total, self.count = 0, 0

    def add(self, values: Tensor, count: int) -> None:
        self.total, self.count = self.total + values * count, self.count + count

    @property
    def value(self) -> list[float] | None:
        return (self.total / self.count).tolist() if self.count else None


class _Run:
    """The state between two epochs: stacks of the models that still train, best weights of all, records, optimiser."""

    def __init__(self, stack: Stack, records: list[Record]):
        self.kept = {name: value.detach().clone() for name, value in stack.items()}
        self.records, self.alive, self.epoch = records, list(range(len(records))), 0
        self._hold(stack)

    def _hold(self, stack: Stack, moments: list | None = None) -> None:
        self.stack = {name: value.detach().clone().requires_grad_() for name, value in stack.items()}
        self.optimiser = torch.optim.Adam(self.stack.values(), lr=1e-3, weight_decay=1e-5)
        if moments:
            self.optimiser.state.update(zip(self.stack.values(), moments, strict=True))

    def _moments(self) -> list[dict[str, Tensor]]:
        return [self.optimiser.state[value] for value in self.stack.values()]

    def step(self, slopes: list[Tensor]) -> None:
        for value, slope in zip(self.stack.values(), slopes, strict=True):
            value.grad = slope
        self.optimiser.step()

    def judge(self, trained: list[float], watched: list[float] | None, patience: int | None) -> None:
        """Close the epoch: keep better weights, and take out the models that stop."""
        weights = torch.stack([value.detach().flatten(1).isfinite().all(1) for value in self.stack.values()]).all(0).tolist()
        going = []
        for place, model in enumerate(self.alive):
            record = self.records[model]
            record.train.append(trained[place])
            value = -self.epoch if watched is None else watched[place]  # without validation the last epoch is the best
            least = math.inf if record.best_epoch is None else record.validation[record.best_epoch] if watched else -record.best_epoch
            if watched is not None:
                record.validation.append(value)
            sound = weights[place] and math.isfinite(trained[place]) and math.isfinite(value)
            if sound and value < least:
                record.best_epoch = self.epoch
                for name, values in self.stack.items():
                    self.kept[name][model] = values[place].detach()
