"""How alike two sets of maps or scores are: the papers' Pearson correlations."""

import torch
from torch import Tensor


def pearson(first: Tensor, second: Tensor) -> float:
    """Pearson correlation of two sets of scores over examples and features together, as LF's Tables 1 and 2 use it.

    Raises:
        ValueError: shapes that differ, or a constant argument, whose correlation is not defined.

    Source: LF, Appendix C.2.
    """
    return pearson_per_example(first.reshape(1, -1), second.reshape(1, -1)).item()


def pearson_per_example(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation of each example's two maps, `(B, …)` twice to `(B,)`; NaN where a map is constant, if B > 1.

    Raises:
        ValueError: shapes that differ, every map constant, or a map that is not finite.
    """
    if first.shape != second.shape:
        raise ValueError(f"Both sets of maps must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}.")
    flat = [maps.flatten(1).double() for maps in (first, second)]
    if not all(maps.isfinite().all() for maps in flat):
        raise ValueError("A correlation needs finite maps; one of the two holds NaN or infinite values.")
    varies = (flat[0].amax(1) > flat[0].amin(1)) & (flat[1].amax(1) > flat[1].amin(1))
    centred = [maps - maps.mean(1, keepdim=True) for maps in flat]
    norms = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    if not varies.any():
        raise ValueError("A correlation needs maps that vary; one of the two is constant.")
    return torch.where(varies, (centred[0] * centred[1]).sum(1) / norms, torch.nan)
