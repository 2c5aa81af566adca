"""The scenes' eight shapes and their textures.

A shape is the distance of points (u, v) to its edge, negative inside: exact near the edge, but not outside corners. All
lie within the unit circle; v grows downwards.
"""

from math import cos, hypot, pi, sin, tau

import torch
from torch import Tensor


def disc(u: Tensor, v: Tensor) -> Tensor:
    """A disc."""
    return torch.hypot(u, v) - 0.85


def square(u: Tensor, v: Tensor) -> Tensor:
    """A square."""
    return torch.maximum(u.abs(), v.abs()) - 0.7


def triangle(u: Tensor, v: Tensor) -> Tensor:
    """A triangle with equal sides."""
    sides = (u * turn.cos() + v * turn.sin() for turn in torch.arange(3) * tau / 3)
    return torch.stack(list(sides)).amax(0) - 0.5


def star(u: Tensor, v: Tensor) -> Tensor:
    """A star with five tips."""
    # Folded into half a ray, the edge is the line from the tip (1, 0) to the notch at radius 0.4.
    angle = torch.atan2(v, u).remainder(tau / 5)
    angle = torch.minimum(angle, tau / 5 - angle)
    radius = torch.hypot(u, v)
    x, y = radius * angle.cos(), radius * angle.sin()
    across, along = 0.4 * sin(pi / 5), 1 - 0.4 * cos(pi / 5)
    return ((x - 1) * across + y * along) / hypot(across, along)


def ring(u: Tensor, v: Tensor) -> Tensor:
    """A ring."""
    return (torch.hypot(u, v) - 0.68).abs() - 0.22


def cross(u: Tensor, v: Tensor) -> Tensor:
    """A cross with equal arms."""
    u, v = u.abs(), v.abs()
    return torch.minimum(torch.maximum(u - 0.28, v - 0.92), torch.maximum(v - 0.28, u - 0.92))


def crescent(u: Tensor, v: Tensor) -> Tensor:
    """A disc less another one."""
    return torch.maximum(torch.hypot(u, v) - 0.95, 0.78 - torch.hypot(u - 0.42, v))


def heart(u: Tensor, v: Tensor) -> Tensor:
    """A square on its tip, and on each of its upper sides half a disc."""
    v = v - 0.1
    body = torch.maximum((u - v).abs(), (u + v).abs()) / 2**0.5 - 0.5
    lobes = torch.hypot(u.abs() - 0.5 / 2**0.5, v + 0.5 / 2**0.5) - 0.5
    return torch.minimum(body, lobes)


OUTLINES = {shape.__name__: shape for shape in (disc, square, triangle, star, ring, cross, crescent, heart)}


def paint(uniform, colours: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Cover the object's own axes `(N, S, S)` with plain colour, stripes, checks or dots, lit from one side."""
    kind, angle, phase, light = uniform(1, 1), tau * uniform(1, 1), tau * uniform(2, 1, 1), tau * uniform(1, 1)
    wave = 4 + 5 * uniform(1, 1)
    first = (wave * (angle.cos() * u + angle.sin() * v) + phase[:, 0]).sin()
    second = (wave * (angle.cos() * v - angle.sin() * u) + phase[:, 1]).sin()
    both = first * second
    pattern = torch.where(kind < 0.5, first, torch.where(kind < 0.75, both, 2 * (both - 0.4)))
    share = torch.where(kind < 0.25, torch.zeros_like(u), (0.5 + 2 * pattern).clamp(0, 1))
    painted = torch.lerp(colours[:, 0, :, None, None], colours[:, 1, :, None, None], share[:, None])
    return (painted * (1 + 0.2 * (light.cos() * u + light.sin() * v))[:, None]).clamp(0, 1)
