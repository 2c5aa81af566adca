"""Influence functions: what removing a training example does to the loss of a test example, to first order."""

import warnings

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.examples import curvature as curvatures
from lfx_utils.examples.ekfac import ekfac
from lfx_utils.examples.gradients import inner, loss_gradients
from lfx_utils.examples.precision import at_least_single
from lfx_utils.examples.problem import Loss, Problem, problem
from lfx_utils.examples.recurrent import written_out
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
    scale: float | None = None,
    depth: int = 1_000,
    samples: int | None = None,
) -> Tensor:
    """Influence (1/N) ⟨∇L(x), (H + λI)⁻¹ ∇L(xⁿ)⟩ of every training example on every test example's loss.

    H is the Hessian of the mean training loss with respect to the encoder's parameters, or its Gauss–Newton
    approximation: the encoder is linearised, and of the loss's curvature in the representation the positive
    part is kept. The latter is never negative; the Hessian itself seldom is positive definite for a network,
    even at the end of training. Where the loss uses the encoder's weights outside the encoder too, as in a
    decoder with tied weights or a penalty, the gradients hold that use and the Gauss–Newton matrix does not; a
    warning says so. As in `tracin`, the encoder's parameters are those that require gradients, or all where
    none does.

    - `"direct"` solves with the Gauss–Newton matrix exactly, in the space of the P parameters or of the N·D
      latent directions, whichever are fewer, 12,000 at most. `draws` multiplies D; memory grows as 30 times
      the square of their number, in bytes.
    - `"ekfac"` is an approximation for encoders on which `"direct"` and `"cg"` are out of reach: each linear and
      convolutional layer's block of the Gauss–Newton matrix as a Kronecker product whose eigenvalues are corrected,
      and nothing between layers.
    - `"cg"`: conjugate gradients with products of either curvature, to a relative residual of `tolerance`.
    - `"lissa"`: Algorithm 2 on the damped and scaled Hessian, v ← ∇L + v − (H + λI)v/σ, with the Hessian of
      all training examples, until the residual is below `tolerance`, or with that of `samples` fresh ones a step,
      which leaves noise in the scores. LF's code takes σ = 1,000, 100 steps and one sample with, in these units,
      λ = 1: it returns the plain gradient times a constant. A series that has not converged is warned of; one
      that diverges is an error.

    Args:
        model: the trained model, holding the encoder as a submodule; left as found.
        loss: `loss(model, x)`, a scalar, for a batch x; noise comes from torch's global generator.
        test: `(n_test, …)`.
        train: `(n_train, …)`; N is their number.
        part: name of the encoder within the model; `""` if the model is the encoder.
        damping: λ. A weight decay that the loss leaves out belongs here.
        solver: `"direct"`, `"cg"`, `"lissa"` or `"ekfac"`.
        curvature: `"gauss-newton"` or `"hessian"`, for conjugate gradients; LiSSA always takes the Hessian.
        draws: fixed draws of the noise inside the loss, shared by all examples.
        seed: of these draws, and of LiSSA's samples.
        tolerance: relative residual at which conjugate gradients stop, and LiSSA with all examples.
        scale: LiSSA's σ, which must exceed the largest eigenvalue of H + λI; left out, 1.1 times this eigenvalue.
        depth: LiSSA's most steps; of about σ/λ each shrinks the error e-fold.
        samples: examples in each of LiSSA's steps; left out, all.

    Returns:
        Scores `(n_test, n_train)`, positive for proponents, whose removal raises the test loss. Half-precision
        inputs and models are taken in float32, and so are their scores.

    Raises:
        ValueError: more unknowns than `"direct"` solves for, a curvature that is singular or not positive
            definite at this damping, conjugate gradients that do not converge, a LiSSA that diverges, or bad
            arguments as for `tracin`.

    Source: LF, Section 3.1, Table 4 and Algorithm 2; Koh & Liang 2017.
    """
    test, train = (at_least_single(checks.batch(name, images)) for name, images in (("test", test), ("train", train)))
    if solver not in ("direct", "cg", "lissa", "ekfac"):
        raise ValueError(f"solver must be 'direct', 'cg', 'lissa' or 'ekfac', got {solver!r}.")
    if curvature not in ("gauss-newton", "hessian") or (solver in ("direct", "ekfac") and curvature == "hessian"):
        raise ValueError(
            f"curvature must be 'gauss-newton', or 'hessian' unless solver is 'direct' or 'ekfac', got {curvature!r}."
        )
    if not damping >= 0 or draws < 1:
        raise ValueError(f"damping must not be negative and draws at least 1, got {damping} and {draws}.")
    if not (tolerance > 0 and depth >= 1 and (scale is None or scale > 0) and (samples is None or samples >= 1)):
        raise ValueError(
            f"tolerance, scale, depth and samples must be positive, got {tolerance}, {scale}, {depth} and {samples}."
        )
    with written_out(model):
        pass  # A recurrent layer whose curvature is not known is refused before the work.
    with problem(model, loss, part, train[0], factor=draws == 1 or solver == "ekfac") as setting:
        hessian = solver == "lissa" or curvature == "hessian"
        if not hessian:
            _check_way_through_latents(setting)
        if solver == "direct":
            return _direct(setting, test, train, damping, draws, seed).to(test.dtype)
        if solver == "ekfac":
            return ekfac(setting, test, train, damping, draws, seed) / len(train)
        ours = loss_gradients(setting, test, draws=draws, seed=seed, outer=False).dense
        if solver == "lissa":
            solution = lissa(setting, train, ours, damping, draws, seed, scale, depth, samples, tolerance)
        else:
            # Conjugate gradients take some dozens of steps: a Hessian of ten times the rows pays off.
            product = (
                curvatures.hessian_product(setting, train, draws, seed, rows=10 * len(ours))
                if hessian
                else curvatures.gauss_newton_product(setting, train, draws, seed)
            )
            solution = conjugate_gradients(product, ours, damping, tolerance)
        scores = [
            solution @ loss_gradients(setting, block, draws=draws, seed=seed, outer=False).dense.T
            for block in train.split(200)
        ]
    return torch.cat(scores, 1) / len(train)


def _check_way_through_latents(setting: Problem) -> None:
    """Raise if the loss does not use the encoder's output, and warn if it uses weights in another way as well."""
    if not setting.shapes:
        raise ValueError(
            f"loss(model, x) never calls the submodule {setting.part!r}, so it has no representation for the "
            "Gauss–Newton matrix to go through."
        )
    if setting.outside:
        warnings.warn(
            f"The loss uses weights of the encoder outside the encoder, as tied decoders and penalties do "
            f"({', '.join(setting.outside[:3])}). The gradients hold that use, the Gauss–Newton matrix, which knows "
            "the weights through the representation only, does not; solver='cg' with curvature='hessian' holds all.",
            stacklevel=3,
        )


def _direct(setting: Problem, test: Tensor, train: Tensor, damping: float, draws: int, seed: int) -> Tensor:
    parameters = sum(setting.state[name].numel() for name in setting.names)
    latents = sum(shape.numel() for shape in setting.shapes)
    unknowns = min(parameters, len(train) * draws * latents)
    if unknowns > 12_000:
        raise ValueError(
            f"solver='direct' would solve for {unknowns:,} unknowns, the smaller of {parameters:,} parameters and of "
            f"{len(train):,} training examples × {draws} draws × {latents:,} latents, 12,000 at most; give it fewer "
            "examples, or use solver='cg', or 'ekfac', an approximation."
        )
    solve = _in_parameters if parameters == unknowns else _in_latents
    return solve(setting, test, train, damping, draws, seed) / len(train)


def _in_parameters(setting: Problem, test: Tensor, train: Tensor, damping: float, draws: int, seed: int) -> Tensor:
    """N times the scores, from the Gauss–Newton matrix itself."""
    system = curvatures.gauss_newton_matrix(setting, train, draws, seed)
    largest = system.diagonal().max().item()
    system.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(system)
    smallest = 0.0 if failed else factor.diagonal().square().min().item()
    _check_singular(smallest, largest + damping, damping, train)
    ours, theirs = (
        loss_gradients(setting, images, draws=draws, seed=seed, outer=False).dense.double() for images in (test, train)
    )
    if len(test) <= len(train):
        return torch.cholesky_solve(ours.T, factor).T @ theirs.T
    return ours @ torch.cholesky_solve(theirs.T, factor)


def _in_latents(setting: Problem, test: Tensor, train: Tensor, damping: float, draws: int, seed: int) -> Tensor:
    """N times the scores, in the space of the latent directions: (λI + JᵀBJ)⁻¹Jᵀ = Jᵀ(λI + BJJᵀ)⁻¹."""
    by_draw = [curvatures.behind(setting, train, seed + draw) for draw in range(draws)]
    slope, bend = (torch.stack(each) for each in zip(*by_draw, strict=True))
    ours = loss_gradients(setting, test, draws=draws, seed=seed)
    jacobian = curvatures.jacobian(setting, train, draws, seed, slope.shape[2])
    bend = bend.double().flatten(0, 1) / draws
    system = bend @ inner(jacobian, jacobian).double().unflatten(0, bend.shape[:2])
    system = system.flatten(0, 1) / len(train)
    # Fewer latent directions than parameters: the Gauss–Newton matrix has a null space, whatever the data.
    _check_singular(damping, system.diagonal().sum().item() + damping, damping, train)
    system.diagonal().add_(damping)
    left = inner(ours, jacobian).double()
    if setting.outside:
        # The gradients are no longer combinations of J's rows: (λI + JᵀBJ)⁻¹ = (I − Jᵀ(λI + BJJᵀ)⁻¹BJ)/λ.
        theirs = loss_gradients(setting, train, draws=draws, seed=seed)
        right = (bend @ inner(jacobian, theirs).double().unflatten(0, bend.shape[:2])).flatten(0, 1) / len(train)
        return (inner(ours, theirs).double() - left @ torch.linalg.solve(system, right)) / damping
    # The gradient of example n's mean loss is Jᵀ times column n.
    right = torch.zeros(*slope.shape, len(train), dtype=torch.double, device=slope.device)
    index = torch.arange(len(train))
    right[:, index, :, index] = slope.double().transpose(0, 1) / draws
    right = right.flatten(0, 2)
    if len(test) <= len(train):
        return torch.linalg.solve(system.T, left.T).T @ right
    return left @ torch.linalg.solve(system, right)


def _check_singular(smallest: float, largest: float, damping: float, train: Tensor) -> None:
    if smallest <= 10 * torch.finfo(train.dtype).eps * largest:
        raise ValueError(
            f"The curvature is singular at damping={damping}: with it, its eigenvalues reach from {smallest:.1e} to "
            f"about {largest:.1e}. Pass a larger damping."
        )
