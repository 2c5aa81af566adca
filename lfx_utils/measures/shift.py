"""How far masking moves a representation: features replaced by a baseline, and the latent shift that follows."""

import torch
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
        TypeError, ValueError: an encoder in training mode or that draws at random, inputs or representations that are
            not finite or not of one shape.

    Source: LF, Section 4.1.
    """
    checks.evaluating(encoder)
    checks.batch("inputs", inputs)
    if checks.batch("masked", masked).shape != inputs.shape:
        raise ValueError(f"masked must have the inputs' shape {tuple(inputs.shape)}, got {tuple(masked.shape)}.")
    checks.function(encoder, (inputs[:2],))

    def encode(rows: Tensor) -> Tensor:
        return checks.single(checks.latent(checks.on_copies(encoder, rows), len(rows)))

    with torch.no_grad():
        pairs = zip(inputs.split(batch_size), masked.split(batch_size), strict=True)
        return torch.cat([(encode(x) - encode(m)).norm(dim=1) for x, m in pairs])


def _importance(attribution: Tensor) -> Tensor:
    attribution = checks.single(attribution)
    if attribution.dim() == 4:
        return attribution.abs().sum(1).flatten(1)
    return attribution.abs().sum(2) if attribution.dim() == 3 else attribution.abs()


def _unflatten(keep: Tensor, inputs: Tensor) -> Tensor:
    if inputs.dim() == 4:
        return keep.view(len(inputs), 1, *inputs.shape[2:])
    return keep.unsqueeze(2) if inputs.dim() == 3 else keep
