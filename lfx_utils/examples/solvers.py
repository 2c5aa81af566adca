"""Iterative solutions of x (H + λI) = b from products with the curvature alone."""

import warnings

import torch
from torch import Tensor

from lfx_utils.examples.curvature import Product, hessian_product
from lfx_utils.examples.problem import Problem
from lfx_utils.progress import tqdm


def conjugate_gradients(
    product: Product, right: Tensor, damping: float, tolerance: float, steps: int = 1_000
) -> Tensor:
    """Solve x (H + λI) = b for every row b of `right` `(R, P)`."""
    solution, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), residual.square().sum(1)
    goal, steepest = tolerance**2 * square, 0.0
    for _ in tqdm(range(steps), desc="conjugate gradients"):
        rows = (square > goal).nonzero().squeeze(1)
        if not len(rows):
            return solution
        along = direction[rows]
        image = product(along) + damping * along
        bend = (along * image).sum(1) / along.square().sum(1)
        steepest = max(steepest, bend.max().item())
        if not bend.min() > torch.finfo(right.dtype).eps * steepest:
            raise ValueError(
                f"The curvature is singular or not positive definite at damping={damping}: it is {bend.min():.1e} "
                f"along one direction, {steepest:.1e} along another. Pass a larger damping, or take curvature="
                "'gauss-newton'."
            )
        length = square[rows] / (along * image).sum(1)
        solution[rows] += length[:, None] * along
        residual[rows] -= length[:, None] * image
        new = residual[rows].square().sum(1)
        direction[rows] = residual[rows] + (new / square[rows])[:, None] * along
        square[rows] = new
    worst = (square / goal).max().sqrt() * tolerance
    raise ValueError(
        f"Conjugate gradients have not converged in {steps} steps, with a relative residual of {worst:.1e}; the "
        f"curvature is nearly singular at damping={damping}. Pass a larger damping."
    )


def lissa(
    setting: Problem,
    train: Tensor,
    right: Tensor,
    damping: float,
    draws: int,
    seed: int,
    scale: float | None,
    depth: int,
    samples: int | None,
    tolerance: float,
) -> Tensor:
    """Solve x (H + λI) = b for every row b of `right` `(R, P)` by Algorithm 2's series."""
    generator = torch.Generator().manual_seed(seed)
    whole = samples is None or samples >= len(train)
    every = hessian_product(setting, train, draws, seed, rows=depth * len(right) if whole or scale is None else 0)
    if scale is None:
        scale = 1.1 * (largest_eigenvalue(every, right) + damping)
    estimate, norm = right.clone(), right.norm(dim=1).clamp_min(torch.finfo(right.dtype).tiny)
    for step in tqdm(range(depth), desc="LiSSA"):
        rows = torch.randint(len(train), (0 if whole else samples,), generator=generator)
        product = every if whole else hessian_product(setting, train[rows], draws, seed)
        change = right - (product(estimate) + damping * estimate) / scale
        estimate = estimate + change
        # While I − (H + λI)/σ shrinks every vector, the series cannot outgrow its number of terms.
        growth = (estimate.norm(dim=1) / norm).max().item()
        if not growth <= 1.01 * (step + 2):
            raise ValueError(
                f"LiSSA diverges: after {step + 1} steps its estimate is {growth:.1e} times the gradient, beyond the "
                f"{step + 2} that a converging series can reach. Pass a scale above the Hessian's largest eigenvalue "
                f"(now {scale:.4g}), or a larger damping."
            )
        # A step's change is the residual of the estimate before it.
        if whole and (change.norm(dim=1) <= tolerance * norm).all():
            break
    few = slice(0, 4)
    exact = every(estimate[few]) + damping * estimate[few]
    residual = ((right[few] - exact / scale).norm(dim=1) / norm[few]).max().item()
    if residual > 0.1:
        cosine = torch.cosine_similarity(estimate, right).mean().item()
        warnings.warn(
            f"LiSSA has not converged in {depth} steps: its relative residual is {residual:.2f}, its mean cosine with "
            f"the plain gradient {cosine:.4f}. Its scores are no influence functions yet; raise depth or lower scale.",
            stacklevel=3,
        )
    return estimate / scale


def largest_eigenvalue(product: Product, like: Tensor, steps: int = 30) -> float:
    """Estimate the largest eigenvalue in size of a symmetric matrix by Lanczos' method, some per cent too low at most.

    Args:
        product: of rows with the matrix.
        like: a tensor `(…, P)`.
    """
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(1, like.shape[1], generator=generator, dtype=like.dtype).to(like.device)
    basis, diagonal, beside = [vector / vector.norm()], [], []
    for _ in range(min(steps, like.shape[1])):
        image = product(basis[-1])
        diagonal.append((image * basis[-1]).sum())
        known = torch.cat(basis)
        for _ in range(2):  # Twice, since once leaves rounding errors that grow.
            image = image - (image @ known.T) @ known
        beside.append(image.norm())
        if beside[-1] <= 1e-6 * max(abs(value) for value in diagonal):
            break
        basis.append(image / beside[-1])
    matrix = torch.stack(diagonal).diag()
    off = torch.stack(beside[: len(diagonal) - 1]) if len(diagonal) > 1 else matrix.new_zeros(0)
    matrix = matrix + off.diag(1) + off.diag(-1)
    return torch.linalg.eigvalsh(matrix).abs().max().item()
