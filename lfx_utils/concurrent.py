"""Two later answers to RELAX's question: LaFAM reads a layer's activations, COCOA asks towards which examples.

COCOA explains the similarity to a *corpus* less that to a *foil*. Both are means of cosines, so the difference is the
inner product of the normed representation with one vector, `contrast`; and an inner product with a given vector is
what `LabelFree` explains:

    LabelFree(IntegratedGradients, Normed(encoder)).attribute(images, weights=contrast(corpus, foil))
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lfx_utils import checks
from lfx_utils.quality import rescale


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
    seen = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        encoder(images)
    finally:
        handle.remove()
    if not seen or not isinstance(seen[-1], Tensor) or seen[-1].dim() != 4:
        came = tuple(seen[-1].shape) if seen and isinstance(seen[-1], Tensor) else "none"
        raise ValueError(f"layer must have an output of shape (B, K, h, w), got {came}.")
    maps = rescale(seen[-1].mean(dim=1, keepdim=True))
    return functional.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)


class Normed(nn.Module):
    """An encoder whose representations are brought to length 1, so that inner products are cosines."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.training = getattr(encoder, "training", False)  # `train` would reach into the encoder

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map inputs to `(B, D)` of length 1."""
        return functional.normalize(self.encoder(*inputs), dim=1)


def contrast(corpus: Tensor, foil: Tensor) -> Tensor:
    """Return v `(…, D)`, such that ⟨v, h / ‖h‖⟩ is h's mean cosine with the corpus less that with the foil.

    Args:
        corpus: representations `(…, M, D)` of the examples towards which the explanation asks; one corpus, or one for
            each image, as its nearest neighbours are.
        foil: representations `(…, N, D)` of those away from which it asks, such as a random sample of the data.

    Source:
        Lin et al. 2023, "Contrastive corpus attribution for explaining representations", Section 3.
    """
    means = []
    for name, latents in (("corpus", corpus), ("foil", foil)):
        if not checks.batch(name, latents).any(dim=-1).all():
            raise ValueError(f"A representation of the {name} has norm zero, so its cosine to anything is undefined.")
        means.append(functional.normalize(latents, dim=-1).mean(dim=-2))
    if means[0].shape[-1] != means[1].shape[-1]:
        raise ValueError(f"corpus and foil must have the same D, got {tuple(corpus.shape)} and {tuple(foil.shape)}.")
    return means[0] - means[1]
