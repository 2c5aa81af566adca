"""COCOA: towards which examples, and away from which others, does an image's representation point?

The method explains the similarity to a *corpus* less that to a *foil*. Both are means of cosines, so their
difference is the inner product of the normed representation with one vector, `contrast`; and an inner product with a
given vector is what `LabelFree` explains:

    LabelFree(IntegratedGradients, Normed(encoder)).attribute(images, weights=contrast(corpus, foil))
"""

from torch import Tensor, nn
from torch.nn import functional

from lfx_utils import checks


class Normed(nn.Module):
    """An encoder whose representations are brought to length 1, so that inner products are cosines."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.training = getattr(encoder, "training", False)  # `train` would reach into the encoder

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map inputs to `(B, D)` of length 1."""
        return functional.normalize(checks.single(checks.on_copies(self.encoder, *inputs)), dim=1)


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
        means.append(functional.normalize(checks.single(latents), dim=-1).mean(dim=-2))
    if means[0].shape[-1] != means[1].shape[-1]:
        raise ValueError(f"corpus and foil must have the same D, got {tuple(corpus.shape)} and {tuple(foil.shape)}.")
    return means[0] - means[1]
