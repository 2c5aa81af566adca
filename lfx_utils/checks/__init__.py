"""Argument checks shared by every explainer: one clear sentence instead of a wrong map."""

from lfx_utils.checks.encoders import evaluating, function, latent, on_copies
from lfx_utils.checks.inputs import baselines, batch, rows, tokens
from lfx_utils.checks.values import all_finite, counts, explained, finite, positive_definite, probabilities, single

__all__ = [
    "all_finite", "baselines", "batch", "counts", "evaluating", "explained", "finite", "function", "latent",
    "on_copies", "positive_definite", "probabilities", "rows", "single", "tokens",
]  # fmt: skip
