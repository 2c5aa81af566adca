"""A representation as a sum over the parts of its input, by integrated Jacobians.

f(x) = f(a) + Σ_p c_p(x), where a is a baseline and c_p(x) = ∫ ∂f/∂x_p (x_p − a_p) along the straight line from a to x.
"""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lfx_utils import checks
from lfx_utils.progress import tqdm


@dataclass(frozen=True)
class Decomposition:
    """Representations as sums over the parts of their inputs: f(x) = f(a) + Σ_p c_p + residual.

    Args:
        parts: c, `(B, P, D)`.
        baseline: f(a), `(B, D)`.
        latents: f(x), `(B, D)`.
    """

    parts: Tensor
    baseline: Tensor
    latents: Tensor

    @property
    def residual(self) -> Tensor:
        """What the finite number of steps leaves over, `(B, D)`."""
        return self.latents - self.baseline - self.parts.sum(dim=1)

    def __getitem__(self, rows) -> "Decomposition":
        """Return some of the inputs' decompositions, by a slice or a list of numbers."""
        return Decomposition(self.parts[rows], self.baseline[rows], self.latents[rows])


def decompose(
    encoder: Callable[..., Tensor],
    inputs: Tensor,
    baselines: Tensor | float = 0.0,
    *,
    parts: Tensor | None = None,
    n_steps: int = 50,
    internal_batch_size: int = 256,
    additional_forward_args: tuple[Tensor, ...] = (),
    forward_mode: bool | None = None,
) -> Decomposition:
    """Return what each part of an input adds to its representation, by integrated Jacobians.

    Derivatives are taken in the cheaper direction: forward along one direction a part where there are no more parts
    than latent units, else backward from each unit. Both give the same.

    Args:
        encoder: f, in evaluation mode, differentiable, from inputs `(B, …)` to representations `(B, D)`.
        inputs: `(B, …)`, floating-point.
        baselines: a number, or a tensor shaped like the inputs or with 1 as first axis.
        parts: the number of the part that a feature belongs to, integers from 0 to P − 1 that broadcast with one
            input: see `patches`. Left out, each feature is a part.
        n_steps: points of the Gauss-Legendre rule, as in Captum's Integrated Gradients.
        internal_batch_size: the most rows at once, where each derivative of a point counts as one; bounds the memory.
        additional_forward_args: tensors with a row for each input, such as a padding mask.
        forward_mode: choose the direction yourself; some layers have no forward derivative.

    Raises:
        TypeError, ValueError: what `LabelFree` refuses of encoders, inputs and baselines; parts that are no integers
            from 0 or do not broadcast.

    Source:
        Möller et al. 2023, "An Attribution Method for Siamese Encoders" (integrated Jacobians; there the encoder is
        shifted such that the baseline's representation is zero, where all terms but the matrix vanish). Eberle et al.
        2022 (BiLRP) share out the same inner product by relevance propagation.

    >>> encoder = torch.nn.Linear(3, 2, bias=False).eval()
    >>> found = decompose(encoder, torch.rand(4, 3))
    >>> torch.allclose(found.parts.sum(1), found.latents, atol=1e-6)
    True
    """
    checks.evaluating(encoder)
    size = checks.rows((inputs,))
    checks.baselines(inputs, baselines, shared=False)
    for name, value in (("n_steps", n_steps), ("internal_batch_size", internal_batch_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    owner = _owner(parts, inputs)
    count = int(owner.max()) + 1
    inputs = inputs.detach()
    start = torch.as_tensor(baselines, dtype=inputs.dtype, device=inputs.device).expand_as(inputs)
    latents, baseline = (
        _represent(encoder, each, additional_forward_args, internal_batch_size) for each in (inputs, start)
    )
    units = latents.shape[1]
    if forward_mode is None:
        forward_mode = count <= units
    derive = _forward if forward_mode else _backward

    nodes, weights = (torch.as_tensor(each) for each in np.polynomial.legendre.leggauss(n_steps))
    total = latents.new_zeros(size, count, units)
    together = max(1, internal_batch_size // (count if forward_mode else units))
    with _plain_attention(), tqdm(total=size * n_steps, desc="steps") as bar:
        for pairs in torch.arange(size * n_steps).split(together):
            which, step = pairs // n_steps, pairs % n_steps
            at = ((1 + nodes[step]) / 2).to(inputs).view(-1, *[1] * (inputs.dim() - 1))
            which = which.to(inputs.device)
            extra = [each[which.to(each.device)] for each in additional_forward_args]
            gap = inputs[which] - start[which]
            change = derive(lambda rows, extra=extra: encoder(rows, *extra), start[which] + at * gap, gap, owner,
                            internal_batch_size)  # fmt: skip
            total.index_add_(0, which, change * (weights[step] / 2).to(change)[:, None, None])
            bar.update(len(pairs))
    return Decomposition(total, baseline, latents)


def patches(height: int, width: int, rows: int, columns: int | None = None) -> Tensor:
    """Return the number of the patch that each pixel lies in, `(height, width)`, counted line by line.

    >>> patches(2, 4, 1, 2)
    tensor([[0, 0, 1, 1],
            [0, 0, 1, 1]])
    """
    columns = rows if columns is None else columns
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise ValueError(f"rows and columns must lie between 1 and {height} and {width}, got {rows} and {columns}.")
    down, across = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    return down[:, None] * columns + across


def _forward(function, points: Tensor, gap: Tensor, owner: Tensor, bound: int) -> Tensor:
    """Return the derivative along the gap of each part alone, `(R, P, D)`."""

    def push(part: Tensor) -> Tensor:
        return jvp(function, (points,), (torch.where(owner == part, gap, 0),))[1]

    count = torch.arange(int(owner.max()) + 1, device=points.device)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # torch's own use of it
        return vmap(push, out_dims=1, chunk_size=max(1, bound // len(points)))(count)


@contextmanager
def _plain_attention():
    """Set aside the fused attentions, which have no forward derivative and none of many units at once."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _backward(function, points: Tensor, gap: Tensor, owner: Tensor, bound: int) -> Tensor:
    """Return the same from the gradients of all units."""
    points = points.requires_grad_()
    latents = function(points)
    rows, units = latents.shape
    flat, found = owner.expand(points.shape[1:]).flatten(), []
    for part in torch.eye(units, dtype=latents.dtype, device=latents.device).split(max(1, bound // rows)):
        ones = part[:, None].expand(-1, rows, -1)
        gradients = torch.autograd.grad(latents, points, ones, retain_graph=True, is_grads_batched=True)[0]
        products = (gradients * gap).flatten(2)
        pooled = products.new_zeros(*products.shape[:2], int(owner.max()) + 1)
        found.append(pooled.index_add(2, flat, products))
    return torch.cat(found).permute(1, 2, 0).detach()


@torch.no_grad()
def _represent(encoder, inputs: Tensor, extra: tuple[Tensor, ...], bound: int) -> Tensor:
    parts = zip(*(each.split(bound) for each in (inputs, *extra)))
    return torch.cat([checks.latent(encoder(*part), len(part[0])) for part in parts])


def _owner(parts: Tensor | None, inputs: Tensor) -> Tensor:
    """Return the parts as integers that broadcast with one input."""
    shape = inputs.shape[1:]
    if parts is None:
        return torch.arange(shape.numel(), device=inputs.device).view(shape)
    if not isinstance(parts, Tensor) or parts.is_floating_point() or parts.is_complex() or parts.min() < 0:
        raise ValueError("parts must be a tensor of integers from 0, the number of each feature's part.")
    try:
        if torch.broadcast_shapes(parts.shape, shape) == shape:
            return parts.to(inputs.device)
    except RuntimeError:
        pass
    raise ValueError(f"parts must broadcast with one input {tuple(shape)}, got {tuple(parts.shape)}.")
