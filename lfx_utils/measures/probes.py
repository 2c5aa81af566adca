"""What a representation knows: linear classifiers on top of it."""

from collections.abc import Callable

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import Tensor

from lfx_utils.datasets import Annotated
from lfx_utils.examples.representation import represent


def probe(encoder: Callable[[Tensor], Tensor], train: Annotated, test: Annotated) -> dict[str, float]:
    """Score representations by linear classifiers, one a class: mean average precision, and what chance would give.

    Args:
        encoder: frozen, in evaluation mode.
        train: images on which the classifiers are fitted.
        test: images on which they are scored; classes with fewer than ten examples there, or in `train`, are left out.

    Returns:
        `mean_ap`, `chance` (the classes' mean frequency, the average precision of a random order) and `classes`.

    Raises:
        ValueError: an encoder in training mode, or no class with ten examples in both sets.
    """
    known, new = (represent(encoder, part.images, 256).float().cpu() for part in (train, test))
    mean, std = known.mean(0), known.std(0) + 1e-6
    known, new = ((latents - mean) / std for latents in (known, new))
    kept = [column for column in range(train.labels.shape[1])
            if min(train.labels[:, column].sum(), test.labels[:, column].sum()) >= 10]  # fmt: skip
    if not kept:
        raise ValueError(f"No class has ten examples in both sets, of {len(train.images)} and {len(test.images)}.")
    scores = []
    for column in kept:
        classifier = LogisticRegression(C=0.1, max_iter=200).fit(known.numpy(), train.labels[:, column].numpy())
        ranking = classifier.decision_function(new.numpy())
        scores.append(average_precision_score(test.labels[:, column].numpy(), ranking))
    chance = test.labels[:, kept].float().mean().item()
    return {"mean_ap": sum(scores) / len(scores), "chance": chance, "classes": len(kept)}
