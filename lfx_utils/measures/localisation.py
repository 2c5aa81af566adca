"""How good is a map? Localisation, complexity and faithfulness, measured by Quantus on tensors and without labels.

Quantus (Hedström et al. 2023) wants NumPy arrays, labels and a model even where a measure needs none, and counts what
is equally important in the order of memory. Here maps `(B, 1, H, W)`, and masks of the objects, go in, and a score for
each image comes out; equal values are put into random order, so that a map that knows nothing scores by chance.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lfx_utils import checks

GROUND = (224, 224)  # The papers' images, of which Quantus's 1,000 most important pixels are the top k.


def pointing_game(maps: Tensor, masks: Tensor, seed: int = 0) -> Tensor:
    """Return 1 where the most important pixel lies on the object and 0 elsewhere, `(B,)`.

    Args:
        maps: importances `(B, 1, H, W)`; only their order counts.
        masks: where the objects are, bool `(B, 1, H, W)`.
        seed: of the order in which equal values are taken.

    Raises:
        TypeError, ValueError: maps or masks of another shape or type, not finite, or a mask without a pixel.

    Source:
        Zhang et al. 2018, "Top-down neural attention by excitation backprop"; Wickstrøm et al. 2023, Section 4.1.

    >>> maps, masks = torch.arange(16.0).view(1, 1, 4, 4), torch.ones(1, 1, 4, 4).tril().bool()
    >>> pointing_game(maps, masks), top_k(maps, masks, k=4), relevance_rank(maps, masks)
    (tensor([1.]), tensor([1.]), tensor([0.7000]))
    """
    maps, masks = _shuffled(maps, masks, seed)
    first = torch.zeros_like(maps).scatter_(1, maps.argmax(dim=1, keepdim=True), 1)
    return _evaluate("PointingGame", first, masks)


def top_k(maps: Tensor, masks: Tensor, k: int | None = None, seed: int = 0) -> Tensor:
    """Return the share of the k most important pixels that lies on the object, `(B,)`.

    Args:
        k: left out, as large a share of the image as 1,000 pixels of the papers' 224×224, Quantus's default.

    Other arguments and errors as in `pointing_game`; also ValueError for a k that is no number of pixels.

    Source:
        Wickstrøm et al. 2023, Section 4.1.
    """
    maps, masks = _shuffled(maps, masks, seed)
    pixels = maps.shape[1]
    k = max(1, round(pixels * 1_000 / (GROUND[0] * GROUND[1]))) if k is None else k
    if not isinstance(k, int) or not 1 <= k <= pixels:
        raise ValueError(f"k must be a whole number of the map's {pixels} pixels, got {k!r}.")
    return _evaluate("TopKIntersection", maps, masks, k=k)


def relevance_rank(maps: Tensor, masks: Tensor, seed: int = 0) -> Tensor:
    """Return the share of the K most important pixels that lies on the object, which has K pixels, `(B,)`.

    Arguments and errors as in `pointing_game`.

    Source:
        Arras et al. 2022, "CLEVR-XAI"; Wickstrøm et al. 2023, Section 4.1.
    """
    maps, masks = _shuffled(maps, masks, seed)
    return _evaluate("RelevanceRankAccuracy", maps, masks)


def relevance_mass(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the share of the positive importance that lies on the object, `(B,)`; NaN where there is none.

    Unlike the other localisation scores it sees a map's zero point: see `rescale`.

    Arguments and errors as in `pointing_game`.

    Source:
        Arras et al. 2022, "CLEVR-XAI"; Møller et al. 2024, Section 4.
    """
    return _shares("RelevanceMassAccuracy", _maps(maps).clamp_min(0), _masks(maps, masks))


def complexity(maps: Tensor) -> Tensor:
    """Return the entropy in nats of the shares in the absolute importance, `(B,)`; NaN where a map is zero.

    Source:
        Bhatt et al. 2020, "Evaluating and aggregating feature-based model explanations".
    """
    return _shares("Complexity", _maps(maps).abs())


def sparseness(maps: Tensor) -> Tensor:
    """Return the Gini index of the absolute importance, 0 if all is alike, near 1 for a single pixel, `(B,)`.

    Source:
        Chalasani et al. 2020, "Concise explanations of neural networks using adversarial training".
    """
    return _shares("Sparseness", _maps(maps).abs())


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
        steps: the least number of groups; Quantus wants them of a size that divides H·W.
        samples: greys a group.
        seed: of the greys.

    Raises:
        TypeError, ValueError: maps and images that do not fit, a classifier in training mode or no module.

    Source:
        Nguyen & Martínez 2020, "On quantitative aspects of model interpretability"; Wickstrøm et al. 2023, Section 4.1.
    """
    maps, images = _maps(maps), checks.batch("images", images)
    if images.dim() != 4 or (len(images), *images.shape[2:]) != (len(maps), *maps.shape[2:]):
        raise ValueError(f"images must fit maps {tuple(maps.shape)}, got shape {tuple(images.shape)}.")
    if not isinstance(classifier, torch.nn.Module):
        raise TypeError(f"classifier must be an nn.Module, got {type(classifier).__name__}.")
    checks.evaluating(classifier)
    features = images[0].numel()
    if not 2 <= steps <= features or samples < 1:
        raise ValueError(f"steps must lie between 2 and {features}, and samples be positive, got {steps}, {samples}.")
    pixels = maps[0].numel()
    varies = maps.abs().flatten(1).amax(dim=1) > maps.abs().flatten(1).amin(dim=1)
    result = torch.full((len(maps),), torch.nan)
    if not varies.any():
        return result
    maps, images = maps[varies], images[varies.to(images.device)]
    group = max(size for size in range(1, features // steps + 1) if pixels % size == 0)
    with torch.no_grad():
        predicted = classifier(images).argmax(dim=1)
    metric = _quantus("MonotonicityCorrelation", features_in_step=group, nr_samples=samples)
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002  # Quantus draws from NumPy's global generator.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = metric(
                model=classifier,
                x_batch=images.cpu().numpy(),
                y_batch=predicted.cpu().numpy(),
                a_batch=_peaked(maps.abs()).cpu().numpy(),
                channel_first=True,
                softmax=True,
                device=str(images.device),
                batch_size=len(images),
            )
    finally:
        np.random.set_state(state)  # noqa: NPY002
    result[varies.cpu()] = torch.as_tensor(np.asarray(scores, dtype=float)).float()
    return result


def rescale(maps: Tensor) -> Tensor:
    """Return each map moved and scaled to reach from 0 to 1; a constant map becomes 0.

    Similarities under masking hardly leave 1: the shares in an untouched RELAX map are all alike and say nothing.

    Source:
        Møller et al. 2024, Section 4, for all maps before complexity, sparseness and relevance mass.
    """
    low, high = _maps(maps).flatten(1).aminmax(dim=1)
    low, span = low.view(-1, 1, 1, 1), (high - low).view(-1, 1, 1, 1)
    return (maps - low) / torch.where(span > 0, span, 1)


def _masks(maps: Tensor, masks: Tensor) -> Tensor:
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        raise TypeError(f"masks must be a bool tensor, got {getattr(masks, 'dtype', type(masks).__name__)}.")
    if masks.shape != maps.shape:
        raise ValueError(f"masks must have the maps' shape {tuple(maps.shape)}, got {tuple(masks.shape)}.")
    if not masks.flatten(1).any(dim=1).all():
        empty = int((~masks.flatten(1).any(dim=1)).sum())
        raise ValueError(f"masks holds {empty} without a pixel, where no place is right; leave these images out.")
    return masks


def _shuffled(maps: Tensor, masks: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return maps and masks `(B, H·W)` with each image's pixels in an order of its own, which decides ties."""
    flat, where = _maps(maps).flatten(1).cpu(), _masks(maps, masks).flatten(1).cpu()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(flat.shape[1], generator=generator)
    start = torch.randint(flat.shape[1], (len(flat), 1), generator=generator)
    order = order[(torch.arange(flat.shape[1]) + start) % flat.shape[1]]
    return flat.gather(1, order), where.gather(1, order)


def _shares(measure: str, maps: Tensor, masks: Tensor | None = None) -> Tensor:
    """Measure maps without negative values; NaN where one is zero everywhere, as it has no shares."""
    used = maps.flatten(1).any(dim=1)
    scores = torch.full((len(maps),), torch.nan)
    if used.any():
        scores[used.cpu()] = _evaluate(
            measure, _peaked(maps[used]), masks if masks is None else masks[used.to(masks.device)]
        )
    return scores


def _evaluate(measure: str, maps: Tensor, masks: Tensor | None = None, **options) -> Tensor:
    """Measure one batch without Quantus's preparations, which the functions here replace."""
    batch = {"x_batch": None, "a_batch": maps.double().cpu().numpy().copy()}  # Some measures write into it.
    if masks is not None:
        batch["s_batch"] = masks.cpu().numpy()
    found = _quantus(measure, **options).evaluate_batch(**batch)
    return torch.as_tensor(np.asarray(found, dtype=float)).float()


def _quantus(measure: str, **options) -> Callable:
    """Return a metric of Quantus, imported when first asked for as it takes seconds."""
    import quantus

    return getattr(quantus, measure)(disable_warnings=True, display_progressbar=False, **options)


def _maps(maps: Tensor) -> Tensor:
    if checks.batch("maps", maps).dim() != 4 or maps.shape[1] != 1:
        raise ValueError(f"maps must have shape (B, 1, H, W), got {tuple(maps.shape)}; sum over channels first.")
    return maps.detach()


def _peaked(maps: Tensor) -> Tensor:
    largest = maps.flatten(1).amax(dim=1).view(-1, 1, 1, 1)
    return maps / torch.where(largest > 0, largest, 1)
