"""Deep k-nearest neighbours: training examples by their distance in the latent space."""

from collections.abc import Callable

import torch
from torch import Tensor

from lfx_utils.examples.ranking import stable_topk
from lfx_utils.examples.representation import check_representations

# Matrix products of this many points and others at once: large enough to be fast, small enough for the cache.
ROWS, COLUMNS = 1_024, 4_096


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
        Scores `(n_test, n_train)`, in float32 where the representations are of half precision.

    Raises:
        ValueError: representations of different sizes, an unknown kernel, or k outside [1, n_train].

    Source: LF, Eq. 5 and Appendix B.2.

    >>> dknn(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([[0.2000, 0.5000]])
    """
    h_test, h_train = check_representations(h_test, h_train)
    if k is not None and not 1 <= k <= len(h_train):
        raise ValueError(f"k must lie between 1 and the {len(h_train)} training examples, got {k}.")
    centre = h_train.mean(0)
    spread = sum((part - centre).square().sum().item() for part in h_train.split(COLUMNS))
    spread = (spread / len(h_train)) ** 0.5 or 1.0
    of_distance = {
        "inverse-distance": lambda distance: 1 / distance.clamp_min(1e-6 * spread),
        "rbf": lambda distance: torch.exp(-distance.square() / (2 * spread**2)),
    }
    of_pairs = {"polynomial": lambda a, b: (1 + a @ b.T / a.shape[1]) ** 2}
    if not callable(kernel) and kernel not in (*of_distance, *of_pairs):
        raise ValueError(f"kernel must be one of {', '.join((*of_distance, *of_pairs))} or a function, got {kernel!r}.")
    if kernel in of_distance:
        if k is None:
            return of_distance[kernel](distances(h_test, h_train))
        found, indices = nearest(h_test, h_train, k)
        return found.new_zeros(len(h_test), len(h_train)).scatter_(1, indices, of_distance[kernel](found))
    score = kernel if callable(kernel) else of_pairs[kernel]
    scores = torch.cat([score(block, h_train) for block in h_test.split(256)])
    if k is None:
        return scores
    indices = nearest(h_test, h_train, k)[1]
    return torch.zeros_like(scores).scatter_(1, indices, scores.gather(1, indices))


def nearest(points: Tensor, others: Tensor, k: int, within: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Each point's k nearest of the others.

    Candidates come from matrix products; their distances are then computed from differences. A point for
    which the products' rounding could have left out a neighbour is compared with all others in that way.

    Args:
        points: `(n, D)`.
        others: `(N, D)`.
        k: at most N.
        within: `(n,)`; neighbours that are farther away do not matter, and some are given this distance.

    Returns:
        Distances and indices, `(n, k)` each, the nearest first and the lower index first where they tie.
    """
    candidates, centre, found = 2 * k + 16, others.mean(0), []
    if _cheap(others) or candidates >= len(others):
        parts = [stable_topk(_differences(block, others), k, largest=False) for block in points.split(256)]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))
    limits = points.new_full((len(points),), torch.inf) if within is None else within.to(points)
    for block, limit in zip(points.split(ROWS), limits.split(ROWS), strict=True):
        bound = block.new_empty(len(block), 0)
        chosen = torch.empty(bound.shape, dtype=torch.long, device=block.device)
        for start in range(0, len(others), COLUMNS):
            squares, rounding = _squares(block, others[start : start + COLUMNS], centre)
            here, index = squares.topk(min(candidates, squares.shape[1]), largest=False)
            # Off by no more than the rounding, each of them.
            bound, chosen = torch.cat([bound, here - rounding], 1), torch.cat([chosen, index + start], 1)
            bound, best = bound.topk(min(candidates, bound.shape[1]), largest=False)
            chosen = chosen.gather(1, best)
        # Those whose distance is at least the limit come last.
        needed = int((bound < limit[:, None].square()).sum(1).max())
        distance, index = _refined(block, others, chosen[:, :needed].sort(1).values, k)
        if needed < k:
            distance = torch.cat([distance, limit[:, None].expand(-1, k - needed)], 1)
            index = torch.cat([index, chosen[:, needed:k]], 1)
        left_out = torch.minimum(distance[:, -1], limit).square() >= bound.amax(1)
        left_out = left_out.nonzero().squeeze(1)
        for rows in left_out.split(256):
            distance[rows], index[rows] = stable_topk(_differences(block[rows], others), k, largest=False)
        found.append((distance, index))
    return tuple(torch.cat(part) for part in zip(*found, strict=True))


def distances(points: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances `(n, N)`, those of close pairs from differences."""
    if _cheap(others):
        return torch.cat([_differences(block, others) for block in points.split(256)])
    found, centre = points.new_empty(len(points), len(others)), others.mean(0)
    for rows, block in zip(found.split(ROWS), points.split(ROWS), strict=True):
        norms = (block - centre).square().sum(1, keepdim=True)
        for place, part in zip(rows.split(COLUMNS, 1), others.split(COLUMNS), strict=True):
            squares, _ = _squares(block, part, centre)
            close = squares < 0.15 * norms
            if close.count_nonzero() > 0.01 * close.numel():
                place.copy_(_differences(block, part))
                continue
            first, second = close.nonzero(as_tuple=True)
            torch.sqrt(squares, out=place)
            place[first, second] = (block[first] - part[second]).norm(dim=1)
    return found


def _squares(points: Tensor, others: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances `(n, N)` by ‖a‖² + ‖b‖² − 2⟨a, b⟩, and a bound on their rounding `(n, 1)`.

    The formula loses all digits between near neighbours, the pairs that matter here, and is good for the far ones.
    """
    moved, centred = points - centre, others - centre
    norms, squared = moved.square().sum(1, keepdim=True), centred.square().sum(1)
    unit = 4 * points.shape[1] * torch.finfo(points.dtype).eps
    squares = torch.addmm(squared, moved, centred.T, alpha=-2).add_(norms)
    return squares, unit * (norms + squared.max())


def _refined(points: Tensor, others: Tensor, chosen: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of each point's chosen others `(n, c)`, by differences; the first of them where they tie."""
    parts = [(others[some] - block[:, None]).norm(dim=2) for block, some in zip(points.split(256), chosen.split(256))]
    distance, order = torch.cat(parts).sort(dim=1, stable=True)
    return distance[:, :k].contiguous(), chosen.gather(1, order[:, :k])


def _cheap(others: Tensor) -> bool:
    """So few dimensions that a matrix product gains nothing."""
    return others.shape[1] < 16


def _differences(points: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")
