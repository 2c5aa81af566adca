"""Per-example derivatives with respect to the encoder's parameters."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from lfx_utils.examples.problem import Problem
from lfx_utils.examples.rows import Rows, columns, stack, with_bias


def loss_gradients(setting: Problem, examples: Tensor, *, draws: int = 1, seed: int | None = 0) -> Rows:
    """Gradient of each example's loss, averaged over `draws` draws of the randomness in the loss.

    Args:
        examples: `(n, …)`.
        draws: how many.
        seed: every example sees the same draws, those of `seed`, `seed + 1`, …; `None` gives each example
            fresh ones.

    Returns:
        n rows.
    """

    def value(weights, taps, example):
        return setting(weights, taps, [], example)[:2]

    blocks = []
    for block in examples.split(block_size(setting.weights())):
        found = []
        for draw in range(draws):
            setting.seed = None if seed is None else seed + draw
            found.append(derivatives(setting, value, block))
        # Outer products are kept for a single draw only: `problem` is told not to factor otherwise.
        blocks.append(found[0] if draws == 1 else Rows(sum(rows.dense for rows in found) / draws, []))
    return stack(blocks)


def derivatives(setting: Problem, function: Callable, block: Tensor, size: int = 0) -> Rows:
    """Derivatives of `function(weights, taps, example)`, which returns a value and the linear layers' inputs.

    Args:
        block: `(n, …)`, to be differentiated at once.
        size: number of entries of the value, 0 for a scalar.

    Returns:
        n rows, or n · size for a vector.
    """
    if setting.recurrent:
        by_weight, by_tap, activations = _one_by_one(setting, function, block)
    else:
        transform = jacrev if size else grad
        randomness = "different" if setting.seed is None else "same"
        (by_weight, by_tap), activations = vmap(
            transform(function, (0, 1), has_aux=True), (None, None, 0), randomness=randomness
        )(setting.weights(), setting.zero_taps(block), block)
    repeats = max(size, 1)
    outer = [
        (
            by_tap[name].reshape(-1, layer.out_features),
            with_bias(layer, activations[name]).repeat_interleave(repeats, 0),
        )
        for name, layer in setting.layers.items()
    ]
    return Rows(columns(by_weight, len(block) * repeats, block), outer)


def _one_by_one(setting: Problem, function: Callable, block: Tensor):
    weights = {name: tensor.clone().requires_grad_() for name, tensor in setting.weights().items()}
    taps = {name: tap.requires_grad_() for name, tap in setting.zero_taps(block).items()}
    slopes, inputs = [], []
    # cuDNN refuses to differentiate recurrent layers in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        for example in block:
            value, activations = function(weights, taps, example)
            inputs.append({name: activation.detach() for name, activation in activations.items()})
            leaves = [*weights.values(), *taps.values()]
            slopes += [torch.autograd.grad(entry, leaves, retain_graph=True) for entry in value.flatten()]
    names = [*weights, *taps]
    stacked = {name: torch.stack(column) for name, column in zip(names, zip(*slopes, strict=True), strict=True)}
    activations = {name: torch.stack([each[name] for each in inputs]) for name in taps}
    return {name: stacked[name] for name in weights}, {name: stacked[name] for name in taps}, activations


def block_size(weights: Mapping[str, Tensor], rows: int = 1) -> int:
    """Examples to differentiate at once, `rows` gradients each, in about 256 MB."""
    size = sum(tensor.numel() for tensor in weights.values())
    return max(1, min(200, 256 // rows, 2**26 // (rows * size + 1)))
