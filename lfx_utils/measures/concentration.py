"""On how few pixels does a map lie? Maps `(B, 1, H, W)` go in, a score for each comes out; their signs do not count."""

import torch
from torch import Tensor

from lfx_utils.measures.maps import flat


def complexity(maps: Tensor) -> Tensor:
    """Return the entropy in nats of the shares in the absolute importance, `(B,)`; NaN where a map is zero.

    Source:
        Bhatt et al. 2020, "Evaluating and aggregating feature-based model explanations".
    """
    values = flat(maps).abs()
    shares = values / values.sum(dim=1, keepdim=True, dtype=torch.float64).to(values)
    return torch.special.entr(shares).sum(dim=1, dtype=torch.float64).float().cpu()


def sparseness(maps: Tensor) -> Tensor:
    """Return the Gini index of the absolute importance, 0 if all is alike, near 1 for a single pixel, `(B,)`.

    Quantus adds 1e-7 to every value first, which makes a map on few pixels up to half a per cent less sparse.

    Source:
        Chalasani et al. 2020, "Concise explanations of neural networks using adversarial training".
    """
    values = flat(maps).abs().sort(dim=1).values
    pixels = values.shape[1]
    ranks = torch.arange(1 - pixels, pixels, 2, dtype=values.dtype, device=values.device)
    total = values.sum(dim=1, dtype=torch.float64)
    return ((values * ranks).sum(dim=1, dtype=torch.float64) / (pixels * total)).float().cpu()
