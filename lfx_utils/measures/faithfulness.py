"""Does a classifier depend on what a map calls important?"""

import numpy as np
import torch
from torch import Tensor

from lfx_utils import checks
from lfx_utils.measures.maps import flat


def monotonicity(
    maps: Tensor,
    images: Tensor,
    classifier: torch.nn.Module,
    *,
    steps: int = 32,
    samples: int = 4,
    seed: int = 0,
) -> Tensor:
    """Return Spearman's correlation of importance with how much a classifier's probability depends on it, `(B,)`.

    By rising absolute importance the pixels' colours are taken in groups; each group alone is replaced by a random
    grey, several times. The importance in a group is correlated with the mean squared change of
    the predicted class's probability. NaN where a map is constant.

    Args:
        maps: `(B, 1, H, W)`.
        images: `(B, C, H, W)`.
        classifier: to logits `(B, classes)`, in evaluation mode; not the encoder that the maps explain.
        steps: the least number of groups, which are of one size that divides H·W.
        samples: greys a group.
        seed: of the greys.

    Raises:
        TypeError, ValueError: maps and images that do not fit, a classifier in training mode or no module.

    Source:
        Nguyen & Martínez 2020, "On quantitative aspects of model interpretability"; Wickstrøm et al. 2023, Section 4.1.
    """
    values, images = flat(maps).abs(), checks.batch("images", images)
    if images.dim() != 4 or (len(images), *images.shape[2:]) != (len(maps), *maps.shape[2:]):
        raise ValueError(f"images must fit maps {tuple(maps.shape)}, got shape {tuple(images.shape)}.")
    if not isinstance(classifier, torch.nn.Module):
        raise TypeError(f"classifier must be an nn.Module, got {type(classifier).__name__}.")
    checks.evaluating(classifier)
    features, pixels = images[0].numel(), values.shape[1]
    if not 2 <= steps <= features or samples < 1:
        raise ValueError(f"steps must lie between 2 and {features}, and samples be positive, got {steps}, {samples}.")
    checks.function(classifier, (images[:2],))
    varies = (values.amax(dim=1) > values.amin(dim=1)).cpu()
    result = torch.full((len(maps),), torch.nan)
    if not varies.any():
        return result
    values, images = values[varies.to(values.device)].cpu(), images[varies.to(images.device)]
    group = max(size for size in range(1, features // steps + 1) if pixels % size == 0)
    # Quantus's order among equal values, of which the channels of a pixel are some, so that scores stay comparable.
    values = values.repeat(1, images.shape[1])
    order = torch.from_numpy(np.argsort(values.numpy(), axis=1)).split(group, dim=1)
    changes = _changes(classifier, images, order, samples, seed)
    sums = torch.stack([values.gather(1, places).sum(dim=1) for places in order], dim=1)
    pairs = zip(sums.numpy(), changes.numpy(), strict=True)
    from scipy import stats  # slow to import, and needed here alone

    result[varies] = torch.tensor([stats.spearmanr(*pair).statistic for pair in pairs]).float()
    return result


@torch.no_grad()
def _changes(classifier: torch.nn.Module, images: Tensor, order: tuple[Tensor, ...], samples: int, seed: int) -> Tensor:
    """Return the mean squared change `(B, groups)` of the predicted class's probability, group by group."""
    rng = np.random.RandomState(seed)
    before, predicted = _probabilities(classifier, images.clone()).max(dim=1)
    changes = []
    for places in order:
        total = 0
        for _ in range(samples):
            greys = torch.from_numpy(rng.uniform(size=(len(images), 1))).to(images).expand(places.shape)
            moved = images.flatten(1).scatter(1, places.to(images.device), greys).view_as(images)
            after = _probabilities(classifier, moved).gather(1, predicted[:, None])[:, 0]
            total = total + (after - before).square()
        changes.append(total / samples)
    return torch.stack(changes, dim=1).cpu()


def _probabilities(classifier: torch.nn.Module, images: Tensor) -> Tensor:
    return checks.single(checks.latent(classifier(images), len(images))).softmax(dim=1)
