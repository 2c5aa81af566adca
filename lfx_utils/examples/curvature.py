"""Curvature of the training loss in the encoder's parameters: through the representation, or by products."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jacrev, jvp, vjp, vmap

from lfx_utils.examples.gradients import Rows, block_size, derivatives, row_size, stack
from lfx_utils.examples.problem import Problem
from lfx_utils.examples.recurrent import written_out

Product = Callable[[Tensor], Tensor]
# Numbers of a matrix that is formed once rather than multiplied with through the encoder: 512 MB in float32.
HELD = 2**27


def jacobian(setting: Problem, examples: Tensor, draws: int, seed: int, size: int, outer: bool = True) -> Rows:
    """The encoder's Jacobian at each draw of the noise and each example, as `draws · n · size` rows.

    An example's `size` latents are all that the loss sees of the encoder: D numbers for each of its calls
    and inputs.
    """

    blocks = []
    for draw in range(draws):
        for block in examples.split(block_size(setting, size)):
            setting.seed = seed + draw
            blocks.append(derivatives(setting, functools.partial(_latents, setting), block, size, outer))
    return stack(blocks)


def gauss_newton_matrix(setting: Problem, examples: Tensor, draws: int, seed: int) -> Tensor:
    """The matrix JᵀBJ/N `(P, P)` in double precision, the mean over `examples` and draws of the noise."""
    total = 0
    for draw in range(draws):
        for block in examples.split(block_size(setting, sum(shape.numel() for shape in setting.shapes))):
            root = _roots(setting, block, seed + draw)[1].double()
            rows = derivatives(setting, functools.partial(_latents, setting), block, root.shape[1], outer=False)
            total = total + gram((root.mT @ rows.dense.double().unflatten(0, root.shape[:2])).flatten(0, 1))
    return total / (draws * len(examples))


def gram(rows: Tensor) -> Tensor:
    """RᵀR `(P, P)` of `rows` `(R, P)`, by three blocks of columns, whose lower half is copied from the upper.

    >>> rows = torch.rand(5, 11)
    >>> torch.allclose(gram(rows), rows.T @ rows)
    True
    """
    product = rows.new_empty(rows.shape[1], rows.shape[1])
    size = -(-rows.shape[1] // 3)
    for start in range(0, rows.shape[1], size):
        block, after = slice(start, start + size), slice(start + size, None)
        product[block, start:] = rows[:, block].T @ rows[:, start:]
        product[after, block] = product[block, after].T
    return product


def behind(setting: Problem, examples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Slope `(n, K)` and positive part of the curvature `(n, K, K)` of each example's loss in its latents."""
    slope, root = _roots(setting, examples, seed)
    return slope, root @ root.mT


def _roots(setting: Problem, examples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Slope `(n, K)` and a root R `(n, K, ≤ K)` of the curvature's positive part, which is R Rᵀ.

    A column that is zero in every example up to rounding, as of a softmax, which is flat along (1, …, 1), is left out.
    """
    setting.seed, shapes = seed, setting.shapes

    def value(shift, example):
        shifts = [
            part.view(shape)
            for part, shape in zip(shift.split([shape.numel() for shape in shapes]), shapes, strict=True)
        ]
        return setting({}, {}, shifts, example)[0]

    def slope(shift, example):
        found = grad(value)(shift, example)
        return found, found

    zero = examples.new_zeros(sum(shape.numel() for shape in shapes))
    slopes, bends = [], []
    with written_out(setting.model):
        for block in examples.split(max(1, 2**19 // (len(zero) * max(len(zero), examples[0].numel())))):
            bend, own = vmap(jacrev(slope, has_aux=True), (None, 0), randomness="same")(zero, block)
            slopes.append(own)
            bends.append(bend)
    values, vectors = torch.linalg.eigh(torch.cat(bends))
    values = values.clamp_min(0)
    curved = values.amax(0) > 4 * torch.finfo(values.dtype).eps * values.max()
    return torch.cat(slopes), (vectors * values.sqrt().unsqueeze(1))[:, :, curved]


def hessian_product(setting: Problem, examples: Tensor, draws: int, seed: int, rows: int = 0) -> Product:
    """The map V ↦ V H on rows `(R, P)`, with H the Hessian of the mean loss of `examples`.

    Where P is no more than `rows`, the rows that are to be multiplied in all, the Hessian is formed once, in 512 MB
    at most; otherwise each product goes through the model.
    """

    def one(vector: Tensor, block: Tensor) -> Tensor:
        def total(weights):
            return vmap(lambda example: setting(weights, {}, [], example)[0], randomness="same")(block).sum()

        weights = setting.parameters()
        return _join(jvp(grad(total), (weights,), (_split(vector, weights),))[1])

    def product(vectors: Tensor) -> Tensor:
        result = torch.zeros_like(vectors)
        for draw in range(draws):
            for block in examples.split(100):
                setting.seed = seed + draw
                with written_out(setting.model):
                    result += vmap(one, (0, None), randomness="same", chunk_size=chunk)(vectors, block)
        return result / (draws * len(examples))

    chunk = max(16, min(256, 2**24 // (100 * row_size(setting))))
    parameters = sum(tensor.numel() for tensor in setting.parameters().values())
    if parameters <= rows and parameters**2 <= HELD:
        matrix = product(torch.eye(parameters, dtype=examples.dtype, device=examples.device))
        return lambda vectors: vectors @ matrix
    return product


def gauss_newton_product(setting: Problem, examples: Tensor, draws: int, seed: int) -> Product:
    """The map V ↦ V JᵀBJ/N on rows `(R, P)`, the Gauss–Newton matrix of the mean loss of `examples`.

    The matrix or the Jacobian J is formed once where it takes no more than 512 MB; otherwise each product
    goes through the encoder.
    """
    parameters = sum(tensor.numel() for tensor in setting.parameters().values())
    latents = sum(shape.numel() for shape in setting.shapes)
    directions = draws * len(examples) * latents
    if parameters <= directions and parameters**2 <= HELD:
        matrix = gauss_newton_matrix(setting, examples, draws, seed).to(examples.dtype)
        return lambda vectors: vectors @ matrix
    if directions * parameters <= HELD:
        dense = jacobian(setting, examples, draws, seed, latents, outer=False).dense
        bend = torch.cat([behind(setting, examples, seed + draw)[1] for draw in range(draws)]) / (draws * len(examples))

        def through_jacobian(vectors: Tensor) -> Tensor:
            moved = (vectors @ dense.T).unflatten(1, bend.shape[:2]).transpose(0, 1)
            return (moved @ bend).transpose(0, 1).flatten(1) @ dense

        return through_jacobian
    bends = [behind(setting, examples, seed + draw)[1] for draw in range(draws)]

    def one(vector: Tensor, block: Tensor, bend: Tensor) -> Tensor:
        def latents(weights):
            return vmap(lambda example: _flat(setting(weights, {}, [], example)[2]), randomness="same")(block)

        weights = setting.parameters()
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


def _latents(setting: Problem, weights: dict[str, Tensor], taps: dict[str, list[Tensor]], example: Tensor):
    _, inputs, outputs = setting(weights, taps, [], example)
    return _flat(outputs), inputs


def _flat(outputs: list[Tensor]) -> Tensor:
    return torch.cat([output.flatten() for output in outputs])


def _join(by_weight: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in by_weight.values()])


def _split(vector: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = vector.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}
