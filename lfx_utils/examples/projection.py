"""Gradients projected at random, layer by layer, so that those of large encoders fit into memory."""

import torch
from torch import Tensor

from lfx_utils.examples.problem import Problem


class Projection:
    """A layer's gradient G `(out, in)` becomes LᵀGR, of about `size` numbers, with random L and R.

    The columns of L are orthonormal directions, drawn at random and scaled so that LLᵀ is the identity on average,
    and R's likewise. The inner product of two projected gradients is that of the gradients on average, and differs
    from it the less, the larger `size`. What has no more than `size` numbers is kept as it is.

    Source: Choe et al. 2024, "What is your data worth to GPT?", for two sides; orthonormal columns are ours.
    """

    def __init__(self, setting: Problem, size: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        layers = {layer.weight: (layer.sizes, layer.bias) for layer in setting.layers}
        within = {bias for _, bias in layers.values()} - {None}
        self.sides: dict[str, tuple[Tensor | None, Tensor | None]] = {}
        self.numbers = 0
        for name, tensor in setting.parameters().items():
            if name in within:
                continue
            out, into = (
                layers[name][0] if name in layers else (len(tensor), tensor[:1].numel()) if tensor.dim() else (1, 1)
            )
            kept = _kept(out, into, size)
            self.sides[name] = tuple(
                _directions(whole, part, generator).to(tensor) if part < whole else None
                for whole, part in zip((out, into), kept, strict=True)
            )
            self.numbers += kept[0] * kept[1]

    def layer(self, name: str, slopes: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes `(R, T, out)` and inputs `(n, T, in)` of a layer, projected."""
        left, right = self.sides[name]
        return slopes if left is None else slopes @ left, values if right is None else values @ right

    def weight(self, name: str, gradients: Tensor) -> Tensor:
        """Gradients `(R, …)` of any other weight, projected: `(R, numbers)`."""
        left, right = self.sides[name]
        if left is None and right is None:
            return gradients.reshape(len(gradients), -1)
        matrix = gradients.reshape(len(gradients), gradients.shape[1], -1)
        matrix = matrix if left is None else left.T @ matrix
        return (matrix if right is None else matrix @ right).flatten(1)


def _kept(out: int, into: int, size: int) -> tuple[int, int]:
    """Numbers of directions on both sides, of as similar a number as the sides allow."""
    if out * into <= size:
        return out, into
    side = max(1, round(size**0.5))
    if out <= side:
        return out, max(1, size // out)
    return (max(1, min(out, size // into)), into) if into <= side else (side, max(1, size // side))


def _directions(whole: int, part: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(whole, part, generator=generator, dtype=torch.double)
    return torch.linalg.qr(drawn).Q * (whole / part) ** 0.5
