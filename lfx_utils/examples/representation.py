"""Representations of a data set, for the methods that compare them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.examples.precision import HALF, at_least_single


def represent(encoder: Callable[[Tensor], Tensor], inputs: Tensor, batch_size: int = 1_000) -> Tensor:
    """Representations h = f(x) of a data set, batch by batch and without gradients.

    Args:
        encoder: maps `(B, …)` to `(B, D)`, in evaluation mode. A module with weights of half precision gets its
            inputs in that precision; one that works in place gets a copy.
        inputs: `(n, …)`.
        batch_size: inputs in one call of the encoder.

    Returns:
        `(n, D)`, in float32 where the encoder computes in half precision.

    Raises:
        TypeError, ValueError: inputs that are no finite batch, an encoder in training mode or one that draws at
            random, an output that is not `(B, D)`.
    """
    checks.evaluating(encoder)
    checks.batch("inputs", inputs)
    weights = encoder.parameters() if isinstance(encoder, nn.Module) else ()
    half = next((weight.dtype for weight in weights if weight.dtype in HALF), inputs.dtype)
    checks.function(encoder, (inputs[:1].to(half),))
    with torch.no_grad():
        return torch.cat(
            [
                at_least_single(checks.latent(encoder(batch.to(half, copy=True)), len(batch)))
                for batch in inputs.split(batch_size)
            ]
        )


def check_representations(h_test: Tensor, h_train: Tensor) -> tuple[Tensor, Tensor]:
    """Return two finite sets of representations of the same size, of at least single precision and one dtype.

    Raises:
        TypeError, ValueError: other inputs.
    """
    for name, latents in (("h_test", h_test), ("h_train", h_train)):
        if checks.batch(name, latents).dim() != 2:
            raise ValueError(
                f"{name} must hold representations of shape (n, D), got {tuple(latents.shape)}; see represent()."
            )
    if h_test.shape[1] != h_train.shape[1]:
        raise ValueError(
            f"h_test and h_train must share the latent size D, got {h_test.shape[1]} and {h_train.shape[1]}."
        )
    h_test, h_train = at_least_single(h_test), at_least_single(h_train)
    dtype = torch.promote_types(h_test.dtype, h_train.dtype)
    return h_test.detach().to(dtype), h_train.detach().to(dtype)
