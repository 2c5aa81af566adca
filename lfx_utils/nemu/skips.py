"""The feature maps that an encoder makes on its way: where they are, and how to pick them up in passing."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = 4  # of a transformer, evenly spaced, the last among them; fewer where their maps would outgrow the image
MOVED = 0.05  # of a map's side: the least by which a change must move where the image's change is moved by half of it


class Skip(NamedTuple):
    """A layer whose output has a place for each part of the image.

    Args:
        layer: name of the submodule.
        layout: "channels first" `(B, C, h, w)`, "channels last" `(B, h, w, C)` or "tokens" `(B, N, D)`.
        size: (h, w).
    """

    layer: str
    layout: str
    size: tuple[int, int]

    def map(self, out: Tensor) -> Tensor:
        """Return the layer's output as a map `(B, C, h, w)`; without the tokens before the patches'."""
        if self.layout == "tokens":
            return out[:, -self.size[0] * self.size[1] :].mT.unflatten(2, self.size)
        return out.movedim(3, 1) if self.layout == "channels last" else out


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
def find(encoder: nn.Module, image: Tensor, most: int) -> tuple[Skip, ...]:
    """Return the layers whose outputs make a pyramid of features, shallowest first.

    They are the last of each resolution, as in a U-Net; a transformer's tokens have that of their patches. Where all
    resolutions are one, it is several blocks, evenly spaced. A layer that runs more than once is passed over, since its
    output is not one map. Which axes are the places is not guessed: one quarter of an image of noise is drawn anew
    after the other, and a map changes where the image does.

    Args:
        encoder: f.
        image: `(1, C, H, W)`, of which shape, precision and device count.
        most: how many layers at most; the shallowest are left out.

    Raises:
        ValueError: no layer's output has a place for each part of the image.
    """
    outputs = _outputs(encoder, _changed(image))
    ways = {name: _layouts(name, out) for name, out in outputs.items() if out.dim() == 4}
    moved = {skip: _moved(skip.map(outputs[skip.layer])) for skips in ways.values() for skip in skips}
    # One layer proves a size; in others of that size, a wide view may spread the change too much to prove it again.
    sizes = {max(skips, key=moved.get).size for skips in ways.values() if skips and max(map(moved.get, skips)) > MOVED}
    ways = {name: [skip for skip in skips if skip.size in sizes] for name, skips in ways.items()}
    maps = {name: max(skips, key=moved.get) for name, skips in ways.items() if skips}
    maps = {name: skip for name, skip in maps.items() if not _is_picture(skip.map(outputs[name]), image.shape[1])}
    if not maps:
        raise ValueError(
            "encoder must have layers with spatial outputs (B, C, h, w), or blocks of tokens (B, N, D) behind one, "
            f"that NEM-U can build on; none of the {len(outputs)} that it ran has."
        )
    grid = min((skip.size for skip in maps.values()), key=math.prod)
    tokens = {name: Skip(name, "tokens", grid) for name, out in outputs.items() if _is_tokens(out, grid)}
    known = {name: (maps | tokens)[name] for name in outputs if name in maps or name in tokens}
    last = {skip.size: skip for skip in known.values()}
    found = [last[size] for size in sorted(last, key=lambda size: -math.prod(size))[-most:]]
    if len(last) == 1 and tokens:
        count = min(BLOCKS, most, max(1, int(math.log2(image.shape[2] / grid[0]))))
        blocks = _blocks(encoder, list(tokens))
        if len(blocks) >= count:
            found = [tokens[blocks[len(blocks) * (i + 1) // count - 1]] for i in range(count)]
    return tuple(found)


def _changed(image: Tensor) -> Tensor:
    """Return noise, the same with each quarter drawn anew in turn, and the same with the first channel drawn anew."""
    generator = torch.Generator().manual_seed(0)
    noise, other = torch.rand(2, *image.shape[1:], generator=generator)
    images = noise.repeat(6, 1, 1, 1)
    halves = [(slice(0, -(-side // 2)), slice(side // 2, side)) for side in image.shape[2:]]
    for number, (rows, columns) in enumerate(((r, c) for r in halves[0] for c in halves[1]), 1):
        images[number, :, rows, columns] = other[:, rows, columns]
    images[5, 0] = other[0]
    return images.to(image)


def _layouts(name: str, out: Tensor) -> list[Skip]:
    """Return how an output of four axes may be read."""
    sizes = {"channels first": out.shape[2:], "channels last": out.shape[1:3]}
    return [Skip(name, layout, tuple(size)) for layout, size in sizes.items() if size.numel() > 1]


def _moved(maps: Tensor) -> float:
    """Return by how much of its side the change of maps `(6, C, h, w)` moves with the images', at the least."""
    change = (maps[1:5].double() - maps[0].double()).square().sum(1)
    change = change / change.sum((1, 2), keepdim=True)
    ways = []
    for axis, pairs in ((1, ((0, 2), (1, 3))), (2, ((0, 1), (2, 3)))):
        if (side := change.shape[axis]) > 1:
            centre = change.sum(3 - axis) @ torch.linspace(0, 1, side).to(change)
            ways += [(centre[after] - centre[before]).item() for before, after in pairs]
    return min(ways) if all(map(math.isfinite, ways)) else 0.0


def _is_picture(maps: Tensor, channels: int) -> bool:
    """Tell whether maps are the image still, as after a normalisation, which brings no two channels together."""
    if maps.shape[1] != channels:
        return maps.shape[1] <= min(channels, 3)
    return not (maps[5] != maps[0]).flatten(1).any(1)[1:].any()


def _is_tokens(out: Tensor, grid: tuple[int, int]) -> bool:
    """Tell whether an output is `(B, N, D)`, a few tokens, such as the class's, before the patches."""
    count = math.prod(grid)
    if out.dim() != 3 or len(out) != 6 or not 0 <= out.shape[1] - count <= 8:
        return False
    moved = [_moved(each[:, -count:].mT.unflatten(2, grid)) for each in (out, out.mT) if each.shape[1] >= count]
    # Where the last axis has places, too, the output says how much places attend to one another, and is no feature.
    return moved[0] > MOVED and not (out.shape[1] == out.shape[2] and moved[1] > moved[0] / 2)


def _outputs(encoder: nn.Module, images: Tensor) -> dict[str, Tensor]:
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
        encoder(images)
    finally:
        for hook in hooks:
            hook.remove()
    once = {name: out for name, out in outputs.items() if calls[name] == 1 and isinstance(out, Tensor)}
    return {name: out for name, out in once.items() if out.dim() and len(out) == len(images)}


def _blocks(encoder: nn.Module, names: list[str]) -> list[str]:
    """Return a transformer's blocks among its layers: many and alike; so are some within a block, but deeper down."""
    families: dict[tuple, list[str]] = {}
    for name in names:
        families.setdefault((name.rpartition(".")[0], type(encoder.get_submodule(name))), []).append(name)
    return max(families.values(), key=lambda kin: (len(kin), -kin[0].count(".")))


def pyramid(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return maps `(B, C, h, w)`, shallowest first, each larger than the next deeper one.

    Where a map is as large as the next deeper one, it is enlarged to twice that.
    """
    rising: list[Tensor] = []
    for out in reversed(maps):
        if rising and rising[0].shape[2:] >= out.shape[2:]:
            size = [2 * side for side in rising[0].shape[2:]]
            out = F.interpolate(out, size, mode="bilinear", align_corners=False)
        rising.insert(0, out)
    return rising
