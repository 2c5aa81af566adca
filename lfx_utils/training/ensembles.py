"""Train many small models of one architecture at once, each as if it were alone."""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from lfx_utils import checks
from lfx_utils.progress import tqdm
from lfx_utils.training import resume
from lfx_utils.training.ensemble_state import Record, Run, Stack

VALIDATION = 1_000_002  # the epoch whose draws are the validation's noise; no training has so many


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
    rate: float = 1e-3,
    validation: Tensor | None = None,
    patience: int | None = None,
    prepare: Callable[[Tensor], Tensor] = lambda rows: rows,
    names: Sequence[str] | None = None,
    checkpoint: Path | str | None = None,
    together: bool | None = None,
) -> list[Record]:
    """Train all models in place with Adam (weight decay 1e-5) and leave them in evaluation mode.

    The parameters are stacked, Adam steps the stacks, and every model has its own order of examples and its own noise,
    so that each ends as it would have ended alone. A model that stops is taken out of the stacks and the others go on:
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
        rate: learning rate; the papers' by default.
        validation: as `data`; each model ends with the weights of its best epoch, else of its last.
        patience: see above; needs `validation`.
        prepare: maps rows of `data` `(B, …)` to inputs `(B, …)`, batch by batch.
        names: one a model, for messages.
        checkpoint: file to save to after every epoch; where it holds this run, training resumes from it and ends the
            same. It belongs to the run, of which only `epochs` may grow, as in `training.fit`.
        together: one batched pass for all models rather than one pass a model. Default: on a GPU, where it pays.

    Returns:
        one record a model.

    Raises:
        ValueError: models that differ or hold buffers, lists of another length than M, data that are too few or not
            finite, patience without validation, or a checkpoint that is another run's, damaged or not writable.

    Source: LF, App. C.3 (optimiser, epochs, patience).
    """
    names = list(names or (f"model {number}" for number in range(len(models))))
    _check(
        models,
        data,
        validation,
        names=names,
        seeds=seeds,
        **{f"settings[{n}]": values for n, values in enumerate(settings)},
    )
    checks.counts(epochs=epochs, batch_size=batch_size)
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data to watch; pass validation=…")
    template, stack = copy.deepcopy(models[0]).to("meta"), stack_module_state(list(models))[0]
    device = next(iter(stack.values())).device
    together = device.type != "cpu" if together is None else together
    columns = [torch.as_tensor(values, dtype=torch.float32, device=device) for values in settings]
    data, validation = data.to(device), None if validation is None else validation.to(device)
    run = Run(stack, names, rate)

    def single(parameters, inputs, eps, *setting):
        return loss(lambda *args: functional_call(template, parameters, args), inputs, eps, *setting)

    def batches(epoch: int, rows: Tensor):
        drawn = [draws(seeds[model], epoch, len(rows), noise) for model in run.alive]
        order, eps = (torch.stack(parts).to(device) for parts in zip(*drawn, strict=True))
        setting = [values[run.alive] for values in columns]
        for part, numbers in zip(order.split(batch_size, 1), eps.split(batch_size, 1), strict=True):
            if part.shape[1] > 1 or batch_size == 1:
                yield prepare(rows[part.flatten()]).unflatten(0, part.shape), numbers, *setting

    if checkpoint:
        plan = {
            "data": resume.checksum(data),
            "validation": resume.checksum(validation),
            "first weights": resume.checksum(stack),
            "loss": _values(single, False, stack, *next(batches(0, data))).detach(),
            **{"names": names, "seeds": list(map(int, seeds)), "settings": [values.tolist() for values in columns]},
            **{"batch_size": batch_size, "noise": noise, "rate": rate, "patience": patience},
        }
        run.resume(checkpoint, plan, epochs)
    steps = math.ceil(len(data) / batch_size) - (batch_size > 1 and len(data) % batch_size == 1)
    with tqdm(total=epochs * steps, initial=run.epoch * steps, desc="ensemble") as bar:
        while run.epoch < epochs and run.alive:
            trained, watched = [], []
            for stacked in batches(run.epoch, data):
                trained.append((_backward(single, together, run.stack, *stacked), stacked[1].shape[1]))
                run.optimiser.step()
                bar.update()
            if validation is not None:
                with torch.no_grad():
                    for stacked in batches(VALIDATION, validation):
                        watched.append((_values(single, together, run.stack, *stacked), stacked[1].shape[1]))
            run.judge(_mean(trained), _mean(watched), patience)
            bar.set_postfix(training=len(run.alive))
            if checkpoint:
                run.save(checkpoint, plan)
    for number, model in enumerate(models):
        model.load_state_dict({name: values[number] for name, values in run.kept.items()})
        model.eval()
    return run.records


def _values(single, together: bool, stack: Stack, *stacked: Tensor) -> Tensor:
    if together:
        return vmap(single)(stack, *stacked)
    return torch.stack([single(*part) for part in _one_by_one(stack, *stacked)])


def _backward(single, together: bool, stack: Stack, *stacked: Tensor) -> Tensor:
    """Give every stack its gradient, and return the losses `(M,)`."""
    if together:
        values = _values(single, together, stack, *stacked)
        gradients = torch.autograd.grad(values.sum(), list(stack.values()))
    else:
        values, each = [], []
        for own, *part in _one_by_one(stack, *stacked):
            values.append(single(own, *part))
            each.append(torch.autograd.grad(values[-1], list(own.values())))
        values, gradients = torch.stack(values), [torch.stack(parts) for parts in zip(*each, strict=True)]
    for value, gradient in zip(stack.values(), gradients, strict=True):
        value.grad = gradient
    return values.detach()


def _one_by_one(stack: Stack, *stacked: Tensor):
    for place, parts in enumerate(zip(*stacked, strict=True)):
        yield {name: value[place].detach().requires_grad_() for name, value in stack.items()}, *parts


def _mean(parts: list[tuple[Tensor, int]]) -> list[float]:
    return (sum(values * count for values, count in parts) / sum(count for _, count in parts)).tolist() if parts else []


def _check(models, data: Tensor, validation: Tensor | None, **columns) -> None:
    if not models or len(data) < 2:
        raise ValueError(f"An ensemble needs a model and 2 examples at least, got {len(models)} and {len(data)}.")
    if validation is not None and len(validation) < 2:
        raise ValueError(f"validation must hold 2 examples at least, got {len(validation)}.")
    checks.finite("data", data)
    checks.finite("validation", data if validation is None else validation)
    for name, values in columns.items():
        if len(values) != len(models):
            raise ValueError(f"{name} must hold one value a model, {len(models)}, got {len(values)}.")
    forms = [[(name, value.shape) for name, value in model.named_parameters()] for model in models]
    if any(form != forms[0] for form in forms) or any(True for _ in models[0].buffers()):
        raise ValueError("models must be of one architecture and hold no buffers, as batch norm does.")
