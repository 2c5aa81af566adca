"""Half precision is widened: gradients, distances and their sums need float32."""

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def at_least_single(tensor: Tensor) -> Tensor:
    """Return a half-precision tensor, float16 or bfloat16, in float32, and any other as it is."""
    return tensor.float() if tensor.dtype in HALF else tensor
