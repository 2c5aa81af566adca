"""Per-example gradients in the encoder's parameters: rows of a matrix, with a layer's columns as outer products."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from lfx_utils.examples.problem import Problem
from lfx_utils.examples.projection import Projection


@dataclass(frozen=True)
class Rows:
    """R gradients, rows of a matrix `(R, P)`: what is dense, and the columns of some layers as outer products.

    A layer's gradient is a sum Σₜ δₜ ⊗ aₜ over its positions t: slopes δ `(R, T, out)` and inputs a `(n, T,
    in)`, which R/n successive rows share.
    """

    dense: Tensor
    outer: list[tuple[Tensor, Tensor]]

    def __len__(self) -> int:
        return len(self.dense)


def inner(first: Rows, second: Rows) -> Tensor:
    """Inner products of all rows of one matrix with all rows of the other, `(R₁, R₂)`.

    A layer contributes Σₜₛ ⟨δₜ, δₛ'⟩⟨aₜ, aₛ'⟩, which never forms its gradient: for the MNIST encoder of LF
    Table 5 that leaves 6 of 43 thousand columns to multiply.
    """
    total = first.dense @ second.dense.T
    for (slope, values), (other_slope, other_values) in zip(first.outer, second.outer, strict=True):
        (n, t, _), (m, s, _) = values.shape, other_values.shape
        repeats, others = len(slope) // n, len(other_slope) // m
        right, other = other_slope.flatten(0, 1).T, other_values.flatten(0, 1).T
        blocks = max(1, 2**24 // (repeats * t * right.shape[1]))
        for start in range(0, n, blocks):
            chosen = slice(start, start + blocks)
            rows = slice(start * repeats, (start + blocks) * repeats)
            along = (slope[rows].flatten(0, 1) @ right).view(-1, repeats, t, m, others, s)
            products = along.mul_((values[chosen].flatten(0, 1) @ other).view(-1, 1, t, m, 1, s))
            total[rows] += products.sum((2, 5)).view(-1, m * others)
    return total


def stack(parts: list[Rows]) -> Rows:
    """Put matrices of rows on top of each other."""
    pairs = zip(*(part.outer for part in parts), strict=True)
    outer = [tuple(torch.cat(column) for column in zip(*layer, strict=True)) for layer in pairs]
    return Rows(torch.cat([part.dense for part in parts]), outer)


def loss_gradients(
    setting: Problem,
    examples: Tensor,
    *,
    draws: int = 1,
    seed: int | None = 0,
    at_once: int = 200,
    outer: bool = True,
    projection: Projection | None = None,
) -> Rows:
    """Gradient of each example's loss, averaged over `draws` draws of the randomness in the loss.

    Args:
        examples: `(n, …)`.
        draws: how many.
        seed: every example sees the same draws, those of `seed`, `seed + 1`, …; `None` gives each example
            fresh ones.
        at_once: examples to differentiate at once, at most.
        outer: keep outer products where they are cheaper; without them the columns are in the parameters' order.
        projection: project the gradients at random; no outer products are kept then.

    Returns:
        n rows.
    """
    outer = outer and draws == 1 and projection is None

    def value(weights, taps, example):
        return setting(weights, taps, [], example)[:2]

    blocks = []
    for block in examples.split(min(at_once, block_size(setting))):
        found = []
        for draw in range(draws):
            setting.seed = None if seed is None else seed + draw
            found.append(derivatives(setting, value, block, outer=outer, projection=projection))
        blocks.append(found[0] if draws == 1 else Rows(sum(rows.dense for rows in found) / draws, []))
    return stack(blocks)


def derivatives(
    setting: Problem,
    function: Callable,
    block: Tensor,
    size: int = 0,
    outer: bool = True,
    projection: Projection | None = None,
) -> Rows:
    """Derivatives of `function(weights, taps, example)`, which returns a value and the layers' inputs.

    Args:
        block: `(n, …)`, to be differentiated at once.
        size: number of entries of the value, 0 for a scalar.
        outer, projection: as for `loss_gradients`.

    Returns:
        n rows, or n · size for a vector.
    """
    if setting.recurrent:
        by_weight, by_tap, inputs = _one_by_one(setting, function, block), {}, {}
    else:
        transform = jacrev if size else grad
        randomness = "different" if setting.seed is None else "same"
        (by_weight, by_tap), inputs = vmap(
            transform(function, (0, 1), has_aux=True), (None, None, 0), randomness=randomness
        )(setting.weights(), setting.zero_taps(), block)
    count, repeats = len(block) * max(size, 1), max(size, 1)
    dense = {name: slopes.reshape(count, *setting.state[name].shape) for name, slopes in by_weight.items()}
    dense = {
        name: projection.weight(name, rows) if projection else rows.reshape(count, -1) for name, rows in dense.items()
    }
    products = []
    for layer in setting.layers:
        taps = [
            slope.reshape(count, *shape) for slope, (_, shape) in zip(by_tap[layer.weight], layer.calls, strict=True)
        ]
        slopes, values = layer.slope_rows(taps), layer.input_rows(inputs[layer.weight])
        if outer and layer.kept_as_outer_products:
            products.append((slopes, values))
            continue
        if projection:
            slopes, values = projection.layer(layer.weight, slopes, values)
        by_example = slopes.unflatten(0, (len(block), repeats)).transpose(2, 3)
        formed = (by_example @ values.unsqueeze(1)).flatten(0, 1)
        if layer.bias is not None and not projection:
            formed, dense[layer.bias] = formed[..., :-1], formed[..., -1]
        dense[layer.weight] = formed.reshape(count, -1)
    columns = [dense[name] for name in setting.names if name in dense]
    return Rows(torch.cat([block.new_zeros(count, 0), *columns], 1), products)


def _one_by_one(setting: Problem, function: Callable, block: Tensor) -> dict[str, Tensor]:
    weights = {name: tensor.clone().requires_grad_() for name, tensor in setting.weights().items()}
    slopes = []
    # cuDNN refuses to differentiate recurrent layers in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        for example in block:
            value, _ = function(weights, {}, example)
            for entry in value.flatten():
                found = torch.autograd.grad(entry, list(weights.values()), retain_graph=True, materialize_grads=True)
                slopes.append(found)
    return {name: torch.stack(column) for name, column in zip(weights, zip(*slopes, strict=True), strict=True)}


def block_size(setting: Problem, rows: int = 1) -> int:
    """Examples to differentiate at once, `rows` gradients each, in about 256 MB."""
    return max(1, min(200, 2_048 // rows, 2**26 // (rows * row_size(setting))))


def row_size(setting: Problem, projection: Projection | None = None) -> int:
    """Numbers that one gradient takes while it is being made."""
    factored = sum(layer.positions * sum(layer.sizes) for layer in setting.layers)
    if projection:  # The layers' gradients are never formed.
        return 1 + factored + projection.numbers + sum(weight.numel() for weight in setting.weights().values())
    return 1 + factored + sum(setting.state[name].numel() for name in setting.names)
