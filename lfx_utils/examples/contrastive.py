"""A contrastive loss for single examples, so that the loss-based methods apply to SimCLR."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lfx_utils import checks
from lfx_utils.examples.problem import Loss


def contrastive(augment: Callable[[Tensor], Tensor], negatives: Tensor, temperature: float = 0.5) -> Loss:
    """A loss L(x, θ) of one example for SimCLR, to give to `tracin` and `influence`; the papers leave this
    case open.

    SimCLR's loss is one of a batch: every example is a negative of every other. Here an example meets a
    fixed set of negatives instead, and the augmentations are those of the fixed draws that `draws` and
    `seed` choose, so that test and training examples are measured against the same background. What this
    assumes:

    - the negatives stand for the batches that training saw, and do not hold the example itself;
    - their projections are constants: the gradient flows through the example's own two views only, as in a
      memory bank, so what an example did to the model in its other role, as a negative of others, is not
      counted;
    - a few draws of the augmentation stand for their expectation.

    Args:
        augment: maps images `(B, …)` to randomly changed ones, with torch's global generator.
        negatives: M other training examples `(M, …)`.
        temperature: τ, divides the cosine similarities.

    Returns:
        `loss(model, x)`, where the model, in evaluation mode, maps `(B, …)` to projections `(B, P)`.

    Raises:
        ValueError: negatives that are no finite batch, or a temperature that is not positive.

    Source: an extension of ours; Chen et al. 2020, Eq. 1, for the loss; Wu et al. 2018 for the constant
        negatives.
    """
    checks.batch("negatives", negatives)
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")

    def loss(model: nn.Module, examples: Tensor) -> Tensor:
        # Copies, since augmentations and encoders may work in place.
        views = [F.normalize(model(augment(examples.clone())), dim=1) for _ in range(2)]
        with torch.no_grad():
            others = F.normalize(model(augment(negatives.to(examples, copy=True))), dim=1)
        positive = (views[0] * views[1]).sum(1, keepdim=True)
        logits = [torch.cat([positive, view @ others.T], 1) / temperature for view in views]
        return -sum(similarity.log_softmax(1)[:, 0].mean() for similarity in logits) / 2

    return loss
