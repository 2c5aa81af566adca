"""LaFAM: the activations of one layer as a map, without a gradient and in one pass."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lfx_utils import checks
from lfx_utils.measures.maps import rescale


@torch.no_grad()
def lafam(encoder: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """Return the layer's activations, averaged over channels, scaled to [0, 1] and upsampled to the images' size.

    It takes one pass and no gradient, but needs a layer with a spatial order, and sees nothing that comes after it.

    Args:
        encoder: in evaluation mode.
        layer: one of its modules, with output `(B, K, h, w)`; in the paper the last convolutional one.
        images: `(B, C, H, W)`.

    Returns:
        `(B, 1, H, W)`.

    Raises:
        TypeError: an encoder that is no module.
        ValueError: a layer that is not part of the encoder, does not run, or has no spatial output.

    Source:
        Karjauv & Albayrak 2024, Eqs. 1 and 2.
    """
    if not isinstance(encoder, nn.Module):
        raise TypeError(f"encoder must be an nn.Module, whose layers can be read, got {type(encoder).__name__}.")
    checks.evaluating(encoder)
    if checks.batch("images", images).dim() != 4:
        raise ValueError(f"images must have shape (B, C, H, W), got {tuple(images.shape)}.")
    if layer not in list(encoder.modules()):
        raise ValueError(f"layer must be a module of the encoder, got a {type(layer).__name__} from elsewhere.")
    checks.function(encoder, (images[:1],))
    seen = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        checks.on_copies(encoder, images)
    finally:
        handle.remove()
    if not seen or not isinstance(seen[-1], Tensor) or seen[-1].dim() != 4:
        came = tuple(seen[-1].shape) if seen and isinstance(seen[-1], Tensor) else "none"
        raise ValueError(f"layer must have an output of shape (B, K, h, w), got {came}.")
    maps = rescale(checks.single(seen[-1]).mean(dim=1, keepdim=True))
    return functional.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)
