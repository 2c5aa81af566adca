"""Influence functions: what removing a training example does to the loss of a test example, to first order."""

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.examples import curvature as curvatures
from lfx_utils.examples.gradients import loss_gradients
from lfx_utils.examples.problem import Loss, Problem, problem
from lfx_utils.examples.rows import inner
from lfx_utils.examples.solvers import conjugate_gradients, lissa


def influence(
    model: nn.Module,
    loss: Loss,
    test: Tensor,
    train: Tensor,
    *,
    part: str = "encoder",
    damping: float = 1e-3,
    solver: str = "direct",
    curvature: str = "gauss-newton",
    draws: int = 1,
    seed: int = 0,
    tolerance: float = 1e-5,
    scale: float = 10.0,
    depth: int = 1_000,
    samples: int = 32,
) -> Tensor:
    """Influence (1/N) ⟨∇L(x), (H + λI)⁻¹ ∇L(xⁿ)⟩ of every training example on every test example's loss.

    H is the Hessian of the mean training loss with respect to the encoder's parameters, or its Gauss–Newton
    approximation: the encoder is linearised, and of the loss's curvature in the representation the positive
    part is kept. The latter is never negative; the Hessian itself seldom is positive definite for a network,
    even at the end of training.

    - `"direct"` solves with the Gauss–Newton matrix exactly, in the space of the N·D latent directions if
      these are fewer than the P parameters: (λI + JᵀBJ)⁻¹Jᵀ = Jᵀ(λI + BJJᵀ)⁻¹. `draws` multiplies D; memory
      grows as 30 (N·D)² bytes.
    - `"cg"`: conjugate gradients with products of either curvature, to a relative residual of `tolerance`.
    - `"lissa"`: Algorithm 2 on the damped and scaled Hessian, v ← ∇L + v − (H + λI)v/σ, with the Hessian of
      `samples` fresh training examples a step. LF's code takes σ = 1,000, 100 steps and one sample with, in
      these units, λ = 1: it returns the plain gradient times a constant. A series that has not converged is
      warned of; one that diverges is an error.

    Args:
        model: the trained model, holding the encoder as a submodule; left as found.
        loss: `loss(model, x)`, a scalar, for a batch x; noise comes from torch's global generator.
        test: `(n_test, …)`.
        train: `(n_train, …)`; N is their number.
        part: name of the encoder within the model; `""` if the model is the encoder.
        damping: λ. A weight decay that the loss leaves out belongs here.
        solver: `"direct"`, `"cg"` or `"lissa"`.
        curvature: `"gauss-newton"` or `"hessian"`, for conjugate gradients; LiSSA always takes the Hessian.
        draws: fixed draws of the noise inside the loss, shared by all examples.
        seed: of these draws, and of LiSSA's samples.
        tolerance: relative residual at which conjugate gradients stop.
        scale, depth, samples: LiSSA's σ, which must exceed the Hessian's largest eigenvalue, R and S (all of
            them, if S ≥ N).

    Returns:
        Scores `(n_test, n_train)`, positive for proponents, whose removal raises the test loss.

    Raises:
        ValueError: a curvature that is singular or not positive definite at this damping, conjugate
            gradients that do not converge, a LiSSA that diverges, or bad arguments as for `tracin`.

    Source: LF, Section 3.1, Table 4 and Algorithm 2; Koh & Liang 2017.
    """
    checks.batch("test", test)
    checks.batch("train", train)
    if solver not in ("direct", "cg", "lissa"):
        raise ValueError(f"solver must be 'direct', 'cg' or 'lissa', got {solver!r}.")
    if curvature not in ("gauss-newton", "hessian") or (solver, curvature) == ("direct", "hessian"):
        raise ValueError(
            f"curvature must be 'gauss-newton', or 'hessian' unless solver is 'direct', got {curvature!r}."
        )
    if not damping >= 0 or draws < 1:
        raise ValueError(f"damping must not be negative and draws at least 1, got {damping} and {draws}.")
    with problem(model, loss, part, train[0], factor=solver == "direct" and draws == 1) as setting:
        if solver == "direct":
            return _direct(setting, test, train, damping, draws, seed).to(test.dtype)
        ours = loss_gradients(setting, test, draws=draws, seed=seed).dense
        theirs = loss_gradients(setting, train, draws=draws, seed=seed).dense
        if solver == "lissa":
            solution = lissa(setting, train, ours, damping, draws, seed, scale, depth, samples)
        else:
            hessian = curvature == "hessian"
            products = curvatures.hessian_product if hessian else curvatures.gauss_newton_product
            solution = conjugate_gradients(products(setting, train, draws, seed), ours, damping, tolerance)
    return solution @ theirs.T / len(train)


def _direct(setting: Problem, test: Tensor, train: Tensor, damping: float, draws: int, seed: int) -> Tensor:
    parameters = sum(setting.state[name].numel() for name in setting.names)
    primal = parameters <= len(train)
    if primal:
        setting.layers.clear()
    ours = loss_gradients(setting, test, draws=draws, seed=seed)
    by_draw = [curvatures.behind(setting, train, seed + draw) for draw in range(draws)]
    slope, bend = (torch.stack(each) for each in zip(*by_draw, strict=True))
    if not primal and slope.numel() > 12_000:
        raise ValueError(
            f"solver='direct' would solve for {slope.numel():,} unknowns ({len(train)} training examples × "
            f"{draws} draws × {slope.shape[2]} latents), 12,000 at most; give it fewer examples, or use solver='cg'."
        )
    jacobian = curvatures.jacobian(setting, train, draws, seed, slope.shape[2])
    bend = bend.double().flatten(0, 1) / draws
    # The gradient of example n's mean loss is Jᵀ times column n.
    right = torch.zeros(*slope.shape, len(train), dtype=torch.double, device=slope.device)
    index = torch.arange(len(train))
    right[:, index, :, index] = slope.double().transpose(0, 1) / draws
    right = right.flatten(0, 2)
    if primal:
        dense = jacobian.dense.double()
        system = dense.T @ (bend @ dense.unflatten(0, bend.shape[:2])).flatten(0, 1) / len(train)
        smallest, largest = torch.linalg.eigvalsh(system)[[0, -1]].tolist()
        left, right = ours.dense.double(), dense.T @ right
    else:
        gram = inner(jacobian, jacobian).double().unflatten(0, bend.shape[:2])
        system = (bend @ gram).flatten(0, 1) / len(train)
        # Fewer latent directions than parameters: the Gauss–Newton matrix has a null space, whatever the data.
        smallest, largest = 0.0, system.diagonal().sum().item()
        left = inner(ours, jacobian).double()
    if smallest + damping <= 10 * torch.finfo(train.dtype).eps * (largest + damping):
        raise ValueError(
            f"The curvature is singular at damping={damping}: its eigenvalues reach from {smallest:.1e} to about "
            f"{largest:.1e} ({parameters} parameters, {len(train)} training examples). Pass a larger damping."
        )
    system.diagonal().add_(damping)
    return left @ torch.linalg.solve(system, right) / len(train)
