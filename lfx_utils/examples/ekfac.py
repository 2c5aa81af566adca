"""The Gauss–Newton matrix layer by layer, each an eigenvalue-corrected Kronecker product, for encoders of any depth.

A layer's gradient is Σₜ δₜ aₜᵀ, from the slopes δ of its output and its inputs a at the positions t. Its block of the
Gauss–Newton matrix is taken to be diagonal in the product of two bases, the eigenvectors of E Σₜ δₜδₜᵀ and of
E Σₜ aₜaₜᵀ; the diagonal itself is what the gradients have in this basis, on average, and not the product of the
eigenvalues. What curvature couples one layer to another is left out.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import grad, vmap

from lfx_utils.examples.curvature import behind
from lfx_utils.examples.gradients import loss_gradients, row_size
from lfx_utils.examples.problem import Problem

DIRECTIONS = 8


def ekfac(setting: Problem, test: Tensor, train: Tensor, damping: float, draws: int, seed: int) -> Tensor:
    """N times the scores `(n_test, n_train)`, in 512 MB for the test examples' gradients.

    Parameters outside linear and convolutional layers, such as batch norm's, get the diagonal of the matrix.

    Raises:
        ValueError: an encoder without such layers, or a curvature that is singular at this damping.

    Source: George et al. 2018, "Fast approximate natural gradient descent in a Kronecker-factored eigenbasis"; Grosse
        et al. 2023, "Studying large language model generalization with influence functions", for its use here.
    """
    if not setting.layers:
        raise ValueError(
            "solver='ekfac' knows linear and convolutional layers, and the loss meets the weights of none in the "
            "encoder in these layers only; use solver='cg'."
        )
    bases, rest = _bases(setting, train, draws, seed)
    spectra, diagonal = _spectra(setting, train, draws, seed, bases, rest)
    least = min(values.min().item() for values in [*spectra.values(), *diagonal.values()]) + damping
    most = max(values.max().item() for values in [*spectra.values(), *diagonal.values()]) + damping
    if least <= 10 * torch.finfo(train.dtype).eps * most:
        raise ValueError(f"The curvature is singular at damping={damping}. Pass a larger damping.")

    parameters = sum(tensor.numel() for tensor in setting.parameters().values())
    parts = []
    for block in test.split(max(1, 2**27 // parameters)):
        rows = loss_gradients(setting, block, draws=draws, seed=seed, outer=False).dense
        solved = _solved(setting, rows, bases, spectra, diagonal, damping)
        at_once = max(1, min(200, 2**26 // parameters))
        theirs = (loss_gradients(setting, some, draws=draws, seed=seed, outer=False) for some in train.split(at_once))
        parts.append(torch.cat([solved @ each.dense.T for each in theirs], 1))
    return torch.cat(parts)


def _pseudo_gradients(setting: Problem, train: Tensor, draws: int, seed: int) -> Iterator[tuple[dict, dict]]:
    """Blocks of gradients g for which E ggᵀ is the Gauss–Newton matrix, when divided by the number of `draws` and N.

    They are JᵀB½q for orthonormal directions q, scaled so that qqᵀ is the identity on average: all K of them where
    the latents are few, otherwise a random eight.

    Yields:
        Slopes `(n, T, out)` and inputs `(n, T, in)` by layer, and the other parameters' gradients `(n, …)`.
    """
    latents = sum(shape.numel() for shape in setting.shapes)
    few = min(DIRECTIONS, latents)
    generator = torch.Generator().manual_seed(seed)

    def value(weights, taps, example, direction):
        _, inputs, outputs = setting(weights, taps, [], example)
        return torch.cat([output.flatten() for output in outputs]) @ direction, inputs

    derivative = vmap(grad(value, (0, 1), has_aux=True), (None, None, 0, 0), randomness="same")
    for draw in range(draws):
        for block in train.split(max(1, min(200, 2**25 // row_size(setting)))):
            values, vectors = torch.linalg.eigh(behind(setting, block, seed + draw)[1])
            root = (vectors * values.clamp_min(0).sqrt().unsqueeze(1)) @ vectors.transpose(1, 2)
            drawn = torch.randn(len(block), latents, few, generator=generator, dtype=torch.double)
            chosen = torch.linalg.qr(drawn).Q.to(root) * (latents / few) ** 0.5
            setting.seed = seed + draw
            for direction in (root @ chosen).unbind(2):
                (by_weight, by_tap), inputs = derivative(setting.weights(), setting.zero_taps(), block, direction)
                factors = {
                    layer.weight: (layer.slope_rows(by_tap[layer.weight]), layer.input_rows(inputs[layer.weight]))
                    for layer in setting.layers
                }
                yield factors, by_weight


def _bases(setting: Problem, train: Tensor, draws: int, seed: int) -> tuple[dict[str, tuple], list[str]]:
    """Eigenvectors of Σ δδᵀ and Σ aaᵀ of each layer, as columns, and the names of the other parameters."""
    sums, rest = {}, []
    for factors, by_weight in _pseudo_gradients(setting, train, draws, seed):
        rest = list(by_weight)
        for name, pair in factors.items():
            flat = [rows.flatten(0, 1) for rows in pair]
            products = [rows.T @ rows for rows in flat]
            sums[name] = [old + new for old, new in zip(sums[name], products)] if name in sums else products
    return {name: tuple(torch.linalg.eigh(each)[1] for each in pair) for name, pair in sums.items()}, rest


def _spectra(setting: Problem, train: Tensor, draws: int, seed: int, bases: dict, rest: list[str]):
    """The diagonal in these bases `(out, in)` by layer, and that of the other parameters `(…)` by name."""
    spectra, diagonal = {}, {}
    for factors, by_weight in _pseudo_gradients(setting, train, draws, seed):
        for name, (slopes, values) in factors.items():
            left, right = bases[name]
            moved = (slopes @ left).transpose(1, 2) @ (values @ right)
            spectra[name] = spectra.get(name, 0) + moved.square().sum(0)
        for name in rest:
            diagonal[name] = diagonal.get(name, 0) + by_weight[name].square().sum(0)
    count = draws * len(train)
    return tuple({name: total / count for name, total in each.items()} for each in (spectra, diagonal))


def _solved(setting: Problem, rows: Tensor, bases: dict, spectra: dict, diagonal: dict, damping: float) -> Tensor:
    """Rows `(R, P)` times the inverse of the damped matrix."""
    sizes = {name: tensor.numel() for name, tensor in setting.parameters().items()}
    columns = dict(zip(sizes, rows.split(list(sizes.values()), 1), strict=True))
    solved = {name: columns[name] / (values.flatten() + damping) for name, values in diagonal.items()}
    for layer in setting.layers:
        left, right = bases[layer.weight]
        matrix = columns[layer.weight].unflatten(1, (layer.shape[0], -1))
        if layer.bias is not None:
            matrix = torch.cat([matrix, columns[layer.bias].unsqueeze(2)], 2)
        matrix = left @ ((left.T @ matrix @ right) / (spectra[layer.weight] + damping)) @ right.T
        if layer.bias is not None:
            matrix, solved[layer.bias] = matrix[..., :-1], matrix[..., -1]
        solved[layer.weight] = matrix.flatten(1)
    return torch.cat([solved[name] for name in sizes], 1)
