"""What a representation knows: linear classifiers on top of it."""

from collections.abc import Callable

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import Tensor

from lfx_utils.datasets import Annotated


@torch.no_grad()
def represent(encoder: Callable[[Tensor], Tensor], pictures: Tensor, batch_size: int = 256) -> Tensor:
    """Encode images `(N, 3, H, W)` by the batch, `(N, D)`."""
    return torch.cat([encoder(batch) for batch in pictures.split(batch_size)])


def probe(encoder: Callable[[Tensor], Tensor], train: Annotated, test: Annotated) -> dict[str, float]:
    """Score representations by linear classifiers, one a class: mean average precision, and what chance would give.

    Args:
        encoder: frozen, in evaluation mode.
        train: images on which the classifiers are fitted.
        test: images on which they are scored; classes with fewer than ten examples there, or in `train`, are left out.

    Returns:
        `mean_ap`, `chance` (the classes' mean frequency, the average precision of a random order) and `classes`.
    """
    known, new = (represent(encoder, part.images) for part in (train, test))
    mean, std = known.mean(0), known.std(0) + 1e-6
    known, new = ((latents - mean) / std for latents in (known, new))
    kept = [column for column in range(train.labels.shape[1])
            if min(train.labels[:, column].sum(), test.labels[:, column].sum()) >= 10]  # fmt: skip
    scores = []
    for column in kept:
        classifier = LogisticRegression(C=0.1, max_iter=200).fit(known.numpy(), train.labels[:, column].numpy())
        ranking = classifier.decision_function(new.numpy())
        scores.append(average_precision_score(test.labels[:, column].numpy(), ranking))
    chance = test.labels[:, kept].float().mean().item()
    return {"mean_ap": sum(scores) / len(scores), "chance": chance, "classes": len(kept)}
