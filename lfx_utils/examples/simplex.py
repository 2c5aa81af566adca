"""SimplEx: a test example's representation as a convex combination of the training set's."""

import torch
from torch import Tensor, nn

from lfx_utils.examples.representation import check_representations


def simplex(
    h_test: Tensor, h_train: Tensor, solver: str = "convex", epochs: int = 1_000, learning_rate: float = 1e-3
) -> Tensor:
    """SimplEx: the convex combination of training representations closest to the test representation.

    Inside the training set's convex hull many weights give the same reconstruction as soon as n_train > D +
    1. The convex solver returns those of least norm ‖λ‖ (a ridge of 10⁻⁸ of the data's variance, which
    costs as little in the objective): unique, shared equally between duplicates, and invariant under
    rotations of the latent space. The papers' Adam stops wherever it has come after `epochs` steps from
    uniform weights; its 1,000 steps of 0.001 move each preweight by about one at most, so that it ends near
    uniform weights, far from the optimum of Eq. 6.

    Args:
        h_test: `(n_test, D)`.
        h_train: `(n_train, D)`.
        solver: `"convex"`, to the optimum, or `"adam"`, LF's Algorithm 4.
        epochs: Adam's steps E; LF's code takes 1,000.
        learning_rate: Adam's; 0.001 in LF.

    Returns:
        Weights `(n_test, n_train)`, non-negative, each row summing to one, in float32 where the representations
        are of half precision.

    Raises:
        ValueError: representations of different sizes, an unknown solver, or a convex solver that has not
            converged.

    Source: LF, Eq. 6 and Algorithm 4; Crabbé et al. 2021.
    """
    h_test, h_train = check_representations(h_test, h_train)
    if solver == "convex":
        return nearest_in_hull(h_test, h_train)
    if solver != "adam":
        raise ValueError(f"solver must be 'convex' or 'adam', got {solver!r}.")
    preweights = nn.Parameter(h_test.new_zeros(len(h_test), len(h_train)))
    optimiser = torch.optim.Adam([preweights], lr=learning_rate)
    with torch.enable_grad():
        for _ in range(epochs):
            error = (preweights.softmax(1) @ h_train.detach() - h_test.detach()).square().sum()
            (preweights.grad,) = torch.autograd.grad(error, [preweights])
            optimiser.step()
    return preweights.detach().softmax(1)


def nearest_in_hull(targets: Tensor, points: Tensor, ridge: float = 1e-8, steps: int = 50) -> Tensor:
    """Minimise ½‖h − Σλⁿhⁿ‖² + ½ε‖λ‖² over the simplex, for every target h, by Newton's method on the dual.

    The dual has D + 1 unknowns however many points there are: the residual ρ = h − Σλⁿhⁿ and the multiplier
    ν of Σλⁿ = 1. It is convex and piecewise quadratic, ψ(ρ, ν) = ½‖ρ‖² − ⟨h, ρ⟩ + ν + Σ max(0, ⟨hⁿ, ρ⟩ −
    ν)²/2ε, and its solution gives λⁿ = max(0, ⟨hⁿ, ρ⟩ − ν)/ε. A Newton step that leaves the set of positive
    weights as it was has reached the minimum. The ridge ε shrinks tenfold at a time, each solution starting
    the next; the duality gap certifies the last.

    Args:
        targets: `(n, D)`.
        points: `(N, D)`.
        ridge: ε, in units of the points' variance.
        steps: Newton steps at most for each value of the ridge.

    Returns:
        Weights `(n, N)` in the points' dtype.

    Raises:
        ValueError: the duality gap has not closed.
    """
    centre = points.double().mean(0)
    centred = points.double() - centre
    scale = centred.square().sum(1).mean().sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    # One row (hⁿ, −1) a point and (h, −1) a target, so that ⟨hⁿ, ρ⟩ − ν is one product with y = (ρ, ν).
    points, dtype = torch.nn.functional.pad(centred / scale, (0, 1), value=-1.0), points.dtype
    targets = torch.nn.functional.pad((targets.double() - centre) / scale, (0, 1), value=-1.0)
    at_once = max(1, 2**24 // points.numel())
    return torch.cat([_shrink(block, points, ridge, steps) for block in targets.split(at_once)]).to(dtype)


def _shrink(targets: Tensor, points: Tensor, ridge: float, steps: int) -> Tensor:
    y, epsilon = torch.zeros_like(targets), 10.0
    y[:, -1] = -epsilon / len(points)
    while epsilon > ridge:
        epsilon = max(ridge, epsilon / 10)
        y = _newton(targets, points, epsilon, steps, y)
    weights = (y @ points.T).clamp_min(0) / epsilon
    dual = (y * y).sum(1) / 2 - y[:, -1].square() / 2 - (targets * y).sum(1) + epsilon * weights.square().sum(1) / 2
    weights = weights / weights.sum(1, keepdim=True)
    primal = ((targets - weights @ points).square().sum(1) + epsilon * weights.square().sum(1)) / 2
    gap = (primal + dual).abs().max()
    if not gap < 1e-8:
        raise ValueError(f"SimplEx has not converged: its duality gap is {gap:.1e} of the representations' variance.")
    return weights


def _newton(targets: Tensor, points: Tensor, epsilon: float, steps: int, y: Tensor) -> Tensor:
    """Minimise ψ from the starting points y `(n, D + 1)`, with an exact line search along each Newton step."""
    y, rows = y.clone(), torch.arange(len(targets), device=targets.device)
    for _ in range(steps):
        c, current = targets[rows], y[rows]
        slack = current @ points.T
        # The largest weight is at least 1/N: a ν beyond that leaves no weight at all, and lowering it lowers ψ.
        excess = (epsilon / len(points) - slack.amax(1)).clamp_min(0)
        current[:, -1] -= excess
        slack += excess[:, None]
        positive = slack > 0
        step = _stationary(c, points, epsilon, positive) - current
        change = step @ points.T
        settled = ((slack + change > 0) == positive).all(1)
        y[rows] = current + step
        if settled.all():
            break
        rows, moving = rows[~settled], [part[~settled] for part in (c, current, step, slack, change)]
        y[rows] = moving[1] + _line_search(*moving, epsilon)[:, None] * moving[2]
    return y


def _stationary(targets: Tensor, points: Tensor, epsilon: float, positive: Tensor) -> Tensor:
    """The y where the quadratic piece of ψ with these positive weights is stationary."""
    count = int(positive.sum(1).max())
    if count >= points.shape[1]:
        identity = torch.ones(points.shape[1], dtype=points.dtype, device=points.device)
        identity[-1] = 0
        masked = positive.to(points.dtype)[:, :, None] * points
        return torch.linalg.solve(masked.transpose(1, 2) @ points / epsilon + identity.diag(), targets)
    # Fewer positive weights than dimensions: solve for the weights, padded with points that are held at zero.
    active, index = positive.to(torch.uint8).topk(count, dim=1)
    active = active.to(points.dtype)
    chosen = points[index] * active[:, :, None]
    bordered = torch.zeros(len(targets), count + 1, count + 1, dtype=points.dtype, device=points.device)
    bordered[:, :count, :count] = chosen[..., :-1] @ chosen[..., :-1].transpose(1, 2)
    bordered.diagonal(dim1=1, dim2=2)[:, :count] += torch.where(active > 0, epsilon, 1.0)
    bordered[:, :count, -1] = bordered[:, -1, :count] = active
    right = torch.cat([(chosen[..., :-1] @ targets[:, :-1, None])[..., 0], torch.ones_like(targets[:, :1])], 1)
    solution = torch.linalg.solve(bordered, right)
    return torch.cat([targets[:, :-1] - (solution[:, None, :-1] @ chosen[..., :-1])[:, 0], solution[:, -1:]], 1)


def _line_search(targets, current, step, slack, change, epsilon) -> Tensor:
    """Bisect for the zero of ψ's slope along each step; the slope never falls, since ψ is convex."""
    flat = ((current - targets) * step).sum(1) - current[:, -1] * step[:, -1]
    bend = step[:, :-1].square().sum(1)

    def slope(length: Tensor) -> Tensor:
        return flat + length * bend + ((slack + length[:, None] * change).clamp_min(0) * change).sum(1) / epsilon

    low, high = torch.zeros_like(flat), torch.ones_like(flat)
    while (rising := slope(high) < 0).any() and high.max() < 1e6:
        low, high = torch.where(rising, high, low), torch.where(rising, 2 * high, high)
    for _ in range(24):
        middle = (low + high) / 2
        above = slope(middle) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2
