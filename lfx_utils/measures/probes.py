"""What a representation knows: linear classifiers on top of it."""

from collections.abc import Callable

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import Tensor

from lfx_utils.datasets import Annotated
from lfx_utils.examples import represent


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
    known, new = _standardised(encoder, train, test)
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


def accuracy(encoder: Callable[[Tensor], Tensor], train: Annotated, test: Annotated) -> dict[str, float]:
    """Score representations by one linear classifier, of images that show one class each.

    Args:
        encoder: frozen, in evaluation mode.
        train: images on which the classifier is fitted.
        test: images on which it is scored.

    Returns:
        `accuracy`, `chance` (the share of the most frequent class) and `classes`.

    Raises:
        ValueError: an encoder in training mode.
    """
    known, new = _standardised(encoder, train, test)
    right, asked = (part.labels.int().argmax(1) for part in (train, test))
    classifier = LogisticRegression(C=0.1, max_iter=200).fit(known.numpy(), right.numpy())
    return {
        "accuracy": float(classifier.score(new.numpy(), asked.numpy())),
        "chance": test.labels.float().mean(0).max().item(),
        "classes": test.labels.shape[1],
    }


def _standardised(encoder, train: Annotated, test: Annotated) -> tuple[Tensor, Tensor]:
    """Represent both parts, and bring every unit to mean 0 and deviation 1 on the first."""
    known, new = (represent(encoder, part.images, 256) for part in (train, test))
    mean, std = known.mean(0), known.std(0) + 1e-6
    return (known - mean) / std, (new - mean) / std
