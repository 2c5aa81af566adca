"""Representation-based example importance: a test example's representation made of the training set's."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.examples.quadratic import nearest_in_hull


def represent(encoder: Callable[[Tensor], Tensor], inputs: Tensor, batch_size: int = 1_000) -> Tensor:
    """Representations h = f(x) of a data set, batch by batch and without gradients.

    Args:
        encoder: maps `(B, …)` to `(B, D)`, in evaluation mode.
        inputs: `(n, …)`.
        batch_size: inputs in one call of the encoder.

    Returns:
        `(n, D)`.

    Raises:
        TypeError, ValueError: inputs that are no finite batch, an encoder in training mode, an output that
            is not `(B, D)`.
    """
    checks.evaluating(encoder)
    checks.batch("inputs", inputs)
    with torch.no_grad():
        return torch.cat([checks.latent(encoder(batch), len(batch)) for batch in inputs.split(batch_size)])


def dknn(
    h_test: Tensor,
    h_train: Tensor,
    k: int | None = None,
    kernel: str | Callable[[Tensor, Tensor], Tensor] = "inverse-distance",
) -> Tensor:
    """Deep k-nearest neighbours: the kernel κ[f(xⁿ), f(x)] between representations, zero outside the k nearest.

    Identical representations have an infinite inverse distance. Distances are therefore taken to be at least
    10⁻⁶ of the training set's spread σ (its root mean squared distance to its mean), so that a duplicate gets
    the largest score, 10⁶/σ, and not an infinite one.

    Args:
        h_test: `(n_test, D)`.
        h_train: `(n_train, D)`.
        k: neighbours that keep a score, the lower index first where distances tie; `None` drops the
            indicator, as LF does.
        kernel: `"inverse-distance"`; `"rbf"`, exp(−d²/2σ²) with the spread σ; `"polynomial"`, (1 + ⟨h,
            h'⟩/D)²; or a function of `(b, D)` and `(n_train, D)` that returns `(b, n_train)`.

    Returns:
        Scores `(n_test, n_train)`.

    Raises:
        ValueError: representations of different sizes, an unknown kernel, or k outside [1, n_train].

    Source: LF, Eq. 5 and Appendix B.2.

    >>> dknn(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([[0.2000, 0.5000]])
    """
    _check(h_test, h_train)
    if k is not None and not 1 <= k <= len(h_train):
        raise ValueError(f"k must lie between 1 and the {len(h_train)} training examples, got {k}.")
    spread = (h_train - h_train.mean(0)).square().sum(1).mean().sqrt().item() or 1.0
    kernels = {
        "inverse-distance": lambda a, b: 1 / _distance(a, b).clamp_min(1e-6 * spread),
        "rbf": lambda a, b: torch.exp(-_distance(a, b).square() / (2 * spread**2)),
        "polynomial": lambda a, b: (1 + a @ b.T / a.shape[1]) ** 2,
    }
    if not callable(kernel) and kernel not in kernels:
        raise ValueError(f"kernel must be one of {', '.join(kernels)} or a function, got {kernel!r}.")
    score = kernel if callable(kernel) else kernels[kernel]
    scores = torch.cat([score(block, h_train) for block in h_test.split(256)])
    if k is None:
        return scores
    nearest = torch.cat([_distance(block, h_train).argsort(dim=1, stable=True)[:, :k] for block in h_test.split(256)])
    return torch.zeros_like(scores).scatter_(1, nearest, scores.gather(1, nearest))


def _distance(a: Tensor, b: Tensor) -> Tensor:
    # The faster ‖a‖² + ‖b‖² − 2⟨a, b⟩ loses all digits between near neighbours, the pairs that matter here.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


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
        Weights `(n_test, n_train)`, non-negative, each row summing to one.

    Raises:
        ValueError: representations of different sizes, an unknown solver, or a convex solver that has not
            converged.

    Source: LF, Eq. 6 and Algorithm 4; Crabbé et al. 2021.
    """
    _check(h_test, h_train)
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


def _check(h_test: Tensor, h_train: Tensor) -> None:
    for name, latents in (("h_test", h_test), ("h_train", h_train)):
        if checks.batch(name, latents).dim() != 2:
            raise ValueError(
                f"{name} must hold representations of shape (n, D), got {tuple(latents.shape)}; see represent()."
            )
    if h_test.shape[1] != h_train.shape[1]:
        raise ValueError(
            f"h_test and h_train must share the latent size D, got {h_test.shape[1]} and {h_train.shape[1]}."
        )
