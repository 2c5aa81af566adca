"""The papers' measures: masking, latent shift, correlations of maps, and intervals."""

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from lfx_utils import checks


def mask_most_important(inputs: Tensor, attribution: Tensor, share: float, baseline: Tensor) -> Tensor:
    """Replace the most important `share` of each input's features by the baseline: m ⊙ x + (1 − m) ⊙ x̄.

    Args:
        inputs: `(B, C, H, W)`, `(B, T, C)` or `(B, d)`.
        attribution: of the same shape; its magnitude, summed over channels, ranks the features. A large negative share
            thus counts as much as a large positive one, as in LF's code.
        share: in [0, 1]; ⌊share · n⌋ of the n pixels, time steps or entries are masked, all channels together.
        baseline: x̄, of a shape that broadcasts to `inputs`.

    Raises:
        TypeError, ValueError: shapes that differ or are none of these, an attribution that is not finite, a share
            outside [0, 1], a baseline that is no tensor.

    Source: LF, Section 4.1.
    """
    if inputs.dim() not in (2, 3, 4):
        raise ValueError(f"inputs must be (B, C, H, W), (B, T, C) or (B, d), got {tuple(inputs.shape)}.")
    checks.batch("attribution", attribution)
    if not isinstance(baseline, Tensor):
        raise TypeError(f"baseline must be a tensor that broadcasts to the inputs, got {type(baseline).__name__}.")
    if attribution.shape != inputs.shape:
        raise ValueError(
            f"attribution must have the inputs' shape {tuple(inputs.shape)}, got {tuple(attribution.shape)}."
        )
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}.")
    importance = _importance(attribution)
    count = int(share * importance.shape[1] + 1e-9)
    # topk is several times faster than a full sort and picks exactly `count` features where importances tie.
    keep = torch.ones_like(importance, dtype=torch.bool).scatter_(
        1, importance.topk(count, dim=1, sorted=False).indices, False
    )
    return torch.where(_unflatten(keep, inputs), inputs, baseline.expand_as(inputs))


def latent_shift(encoder, inputs: Tensor, masked: Tensor, batch_size: int = 1_000) -> Tensor:
    """Distance ‖f(x) − f(masked x)‖ that masking moves each representation, in units of the latent space.

    LF's text reports this norm, its released code the square; square the result for the latter.

    Args:
        encoder: maps `(B, …)` to `(B, D)`.
        inputs, masked: `(B, …)`, of one shape.

    Returns:
        `(B,)`.

    Raises:
        TypeError, ValueError: an encoder in training mode, shapes that differ.

    Source: LF, Section 4.1.
    """
    checks.evaluating(encoder)
    if inputs.shape != masked.shape:
        raise ValueError(f"masked must have the inputs' shape {tuple(inputs.shape)}, got {tuple(masked.shape)}.")
    with torch.no_grad():
        pairs = zip(inputs.split(batch_size), masked.split(batch_size), strict=True)
        return torch.cat([(encoder(x) - encoder(m)).norm(dim=1) for x, m in pairs])


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


def mean_interval(values) -> tuple[float, float, float]:
    """Mean of independent values and the ends of its 95 % Student-t confidence interval.

    Args:
        values: at least two numbers, one for each example, seed or run.

    Returns:
        `(mean, low, high)`.

    Raises:
        ValueError: fewer than two values, or values that are not finite.

    >>> [round(end, 3) for end in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    values = np.asarray(values, dtype=float).ravel()
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"An interval needs at least two finite values, got {values[:5]}.")
    mean = values.mean()
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(mean), float(mean - half), float(mean + half)


def slope_interval(x, y) -> tuple[float, float, float]:
    """Slope of the least-squares line through (log x, log y), with the ends of its 95 % confidence interval.

    Raises:
        ValueError: fewer than three points, or values that are not positive.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 3 or len(x) != len(y) or (x <= 0).any() or (y <= 0).any():
        raise ValueError("A slope on logarithmic axes needs at least three pairs of positive values.")
    fit = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, len(x) - 2) * fit.stderr
    return float(fit.slope), float(fit.slope - half), float(fit.slope + half)


def _importance(attribution: Tensor) -> Tensor:
    if attribution.dim() == 4:
        return attribution.abs().sum(1).flatten(1)
    return attribution.abs().sum(2) if attribution.dim() == 3 else attribution.abs()


def _unflatten(keep: Tensor, inputs: Tensor) -> Tensor:
    if inputs.dim() == 4:
        return keep.view(len(inputs), 1, *inputs.shape[2:])
    return keep.unsqueeze(2) if inputs.dim() == 3 else keep
