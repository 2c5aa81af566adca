"""Curvature of the training loss in the encoder's parameters: through the representation, or by products."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jacrev, jvp, vjp, vmap

from lfx_utils.examples.gradients import block_size, derivatives
from lfx_utils.examples.problem import Problem
from lfx_utils.examples.recurrent import written_out
from lfx_utils.examples.rows import Rows, stack

Product = Callable[[Tensor], Tensor]


def jacobian(setting: Problem, examples: Tensor, draws: int, seed: int, size: int) -> Rows:
    """The encoder's Jacobian at each draw of the noise and each example, as `draws · n · size` rows.

    An example's `size` latents are all that the loss sees of the encoder: D numbers for each of its calls
    and inputs.
    """

    def latents(weights, taps, example):
        _, activations, outputs = setting(weights, taps, [], example)
        return _flat(outputs), activations

    blocks = []
    for draw in range(draws):
        for block in examples.split(block_size(setting.weights(), size)):
            setting.seed = seed + draw
            blocks.append(derivatives(setting, latents, block, size))
    return stack(blocks)


def behind(setting: Problem, examples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Slope `(n, K)` and positive part of the curvature `(n, K, K)` of each example's loss in its latents."""
    setting.seed = seed
    shapes = [output.shape for output in setting({}, setting.zero_taps(examples), [], examples[0])[2]]
    if not shapes:
        raise ValueError(
            f"loss(model, x) never calls the submodule {setting.part!r}, so it does not depend on the encoder."
        )

    def value(shift, example):
        shifts = [
            part.view(shape)
            for part, shape in zip(shift.split([shape.numel() for shape in shapes]), shapes, strict=True)
        ]
        return setting({}, taps, shifts, example)[0]

    taps = setting.zero_taps(examples)
    zero = examples.new_zeros(sum(shape.numel() for shape in shapes))
    slopes, bends = [], []
    with written_out(setting.model):
        for block in examples.split(max(1, 128 // len(zero))):
            slopes.append(vmap(grad(value), (None, 0), randomness="same")(zero, block))
            bends.append(vmap(jacrev(grad(value)), (None, 0), randomness="same")(zero, block))
    values, vectors = torch.linalg.eigh(torch.cat(bends))
    return torch.cat(slopes), (vectors * values.clamp_min(0).unsqueeze(1)) @ vectors.transpose(1, 2)


def hessian_product(setting: Problem, examples: Tensor, draws: int, seed: int) -> Product:
    """The map V ↦ V H on rows `(R, P)`, with H the Hessian of the mean loss of `examples`."""

    def one(vector: Tensor, block: Tensor) -> Tensor:
        def total(weights):
            return vmap(lambda example: setting(weights, {}, [], example)[0], randomness="same")(block).sum()

        weights = setting.weights()
        return _join(jvp(grad(total), (weights,), (_split(vector, weights),))[1])

    def product(vectors: Tensor) -> Tensor:
        result = torch.zeros_like(vectors)
        for draw in range(draws):
            for block in examples.split(100):
                setting.seed = seed + draw
                with written_out(setting.model):
                    result += vmap(one, (0, None), randomness="same", chunk_size=16)(vectors, block)
        return result / (draws * len(examples))

    return product


def gauss_newton_product(setting: Problem, examples: Tensor, draws: int, seed: int) -> Product:
    """The map V ↦ V JᵀBJ/N on rows `(R, P)`, the Gauss–Newton matrix of the mean loss of `examples`."""
    bends = [behind(setting, examples, seed + draw)[1] for draw in range(draws)]

    def one(vector: Tensor, block: Tensor, bend: Tensor) -> Tensor:
        def latents(weights):
            return vmap(lambda example: _flat(setting(weights, {}, [], example)[2]), randomness="same")(block)

        weights = setting.weights()
        moved = jvp(latents, (weights,), (_split(vector, weights),))[1]
        return _join(vjp(latents, weights)[1]((bend @ moved.unsqueeze(2)).squeeze(2))[0])

    def product(vectors: Tensor) -> Tensor:
        result = torch.zeros_like(vectors)
        for draw in range(draws):
            for block, bend in zip(examples.split(100), bends[draw].split(100), strict=True):
                setting.seed = seed + draw
                with written_out(setting.model):
                    result += vmap(one, (0, None, None), randomness="same", chunk_size=16)(vectors, block, bend)
        return result / (draws * len(examples))

    return product


def _flat(outputs: list[Tensor]) -> Tensor:
    return torch.cat([output.flatten() for output in outputs])


def _join(by_weight: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in by_weight.values()])


def _split(vector: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = vector.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}
