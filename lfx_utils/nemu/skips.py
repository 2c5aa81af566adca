"""The feature maps that an encoder makes on its way: where they are, and how to pick them up in passing."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = 4  # of a transformer, evenly spaced, the last among them; fewer where their maps would outgrow the image


@contextmanager
def recorded(encoder: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that fills with the outputs of these layers; no hook is left behind."""
    outputs: dict[str, Tensor] = {}

    def keep(name):
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    hooks = [encoder.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def find(encoder: nn.Module, image: Tensor, most: int) -> tuple[tuple[str, ...], tuple[int, int]]:
    """Return the layers whose outputs make a pyramid of features, shallowest first, and the grid of tokens, if any.

    They are the last of each resolution, as in a U-Net; a transformer's tokens have that of their patches. Where all
    resolutions are one, it is several blocks, evenly spaced. A layer that runs more than once is passed over, since its
    output is not one map.

    Args:
        encoder: f.
        image: `(1, C, H, W)`.
        most: how many layers at most; the shallowest are left out.

    Returns:
        Names of submodules; and the tokens' grid (h, w), or (0, 0) without tokens.

    Raises:
        ValueError: no layer's output has a place for each part of the image.
    """
    outputs = _outputs(encoder, image)
    # A normalised image has places too, but is no feature: it has as many channels as the image.
    maps = {name: out for name, out in outputs.items() if out.dim() == 4 and out.shape[1] > image.shape[1]}
    sizes = {name: out.shape[2:] for name, out in maps.items() if out.shape[2:].numel() > 1}
    if not sizes:
        raise ValueError(
            "encoder must have layers with spatial outputs (B, C, h, w), or blocks of tokens (B, N, D) behind one, "
            f"that NEM-U can build on; none of the {len(outputs)} that it ran has."
        )
    grid = min(sizes.values(), key=torch.Size.numel)
    # A few tokens, such as the class's, stand before the patches.
    tokens = [name for name, out in outputs.items() if out.dim() == 3 and 0 <= out.shape[1] - grid.numel() <= 8]
    last = {sizes.get(name, grid): name for name in outputs if name in sizes or name in tokens}
    layers = [last[size] for size in sorted(last, key=lambda size: -size.numel())[-most:]]
    if len(last) == 1 and tokens:
        count = min(BLOCKS, most, max(1, int(math.log2(image.shape[2] / grid[0]))))
        blocks = _blocks(encoder, tokens)
        layers = [blocks[len(blocks) * (i + 1) // count - 1] for i in range(count)] if len(blocks) >= count else layers
    return tuple(layers), tuple(grid) if tokens else (0, 0)


def _outputs(encoder: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return the tensors that the layers which run once give, in the order in which they are done."""
    calls: Counter = Counter()
    outputs: dict[str, Tensor] = {}

    def keep(name):
        def hook(module, inputs, output):
            calls[name] += 1
            outputs[name] = output

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in encoder.named_modules() if name]
    try:
        encoder(image)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: out for name, out in outputs.items() if calls[name] == 1 and isinstance(out, Tensor)}


def _blocks(encoder: nn.Module, names: list[str]) -> list[str]:
    """Return a transformer's blocks among its layers: many and alike; so are some within a block, but deeper down."""
    families: dict[tuple, list[str]] = {}
    for name in names:
        families.setdefault((name.rpartition(".")[0], type(encoder.get_submodule(name))), []).append(name)
    return max(families.values(), key=lambda kin: (len(kin), -kin[0].count(".")))


def pyramid(outputs: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
    """Return maps `(B, C, h, w)`, shallowest first: as they are, or tokens `(B, N, D)` laid out on their grid.

    Where a map is as large as the next deeper one, it is enlarged to twice that.
    """
    maps: list[Tensor] = []
    for out in reversed(outputs):
        out = out[:, -grid[0] * grid[1] :].mT.unflatten(2, grid) if out.dim() == 3 else out
        if maps and maps[0].shape[2:] >= out.shape[2:]:
            size = [2 * side for side in maps[0].shape[2:]]
            out = F.interpolate(out, size, mode="bilinear", align_corners=False)
        maps.insert(0, out)
    return maps
