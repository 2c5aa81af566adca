"""Does a map point at the object? Maps `(B, 1, H, W)` and masks of the objects go in, a score for each image comes out.

Only the order of the values counts, and among equal values chance decides, so that a map that knows nothing scores by
chance; in the order of memory its upper rows would win. The tests hold each measure against Quantus's.
"""

import numpy as np
import torch
from torch import Tensor

from lfx_utils.measures.maps import flat

GROUND = (224, 224)  # The papers' images, of which Quantus's 1,000 most important pixels are the top k.


def pointing_game(maps: Tensor, masks: Tensor, seed: int = 0) -> Tensor:
    """Return 1 where the most important pixel lies on the object and 0 elsewhere, `(B,)`.

    Args:
        maps: importances `(B, 1, H, W)`; only their order counts.
        masks: where the objects are, bool `(B, 1, H, W)`.
        seed: of the choice among equal values.

    Raises:
        TypeError, ValueError: maps or masks of another shape or type, not finite, or a mask without a pixel.

    Source:
        Zhang et al. 2018, "Top-down neural attention by excitation backprop"; Wickstrøm et al. 2023, Section 4.1.

    >>> maps, masks = torch.arange(16.0).view(1, 1, 4, 4), torch.ones(1, 1, 4, 4).tril().bool()
    >>> pointing_game(maps, masks), top_k(maps, masks, k=4), relevance_rank(maps, masks)
    (tensor([1.]), tensor([1.]), tensor([0.7000]))
    """
    values, places = flat(maps), _objects(maps, masks)
    ties = [np.flatnonzero(row == row.max()) for row in values.cpu().numpy()]
    # One of its ties for each map.
    counts = torch.tensor([len(each) for each in ties])
    drawn = (torch.rand(len(ties), generator=torch.Generator().manual_seed(seed)) * counts).long().tolist()
    picked = torch.tensor([int(each[place]) for each, place in zip(ties, drawn, strict=True)])
    return places.cpu().gather(1, picked[:, None])[:, 0].float()


def top_k(maps: Tensor, masks: Tensor, k: int | None = None, seed: int = 0) -> Tensor:
    """Return the share of the k most important pixels that lies on the object, `(B,)`.

    Args:
        k: left out, as large a share of the image as 1,000 pixels of the papers' 224×224, Quantus's default.

    Other arguments and errors as in `pointing_game`; also ValueError for a k that is no number of pixels.

    Source:
        Wickstrøm et al. 2023, Section 4.1.
    """
    values, places = flat(maps), _objects(maps, masks)
    pixels = values.shape[1]
    k = max(1, round(pixels * 1_000 / (GROUND[0] * GROUND[1]))) if k is None else k
    if not isinstance(k, int) or not 1 <= k <= pixels:
        raise ValueError(f"k must be a whole number of the map's {pixels} pixels, got {k!r}.")
    return _on_object(values, places, [k] * len(values), seed)


def relevance_rank(maps: Tensor, masks: Tensor, seed: int = 0) -> Tensor:
    """Return the share of the K most important pixels that lies on the object, which has K pixels, `(B,)`.

    Arguments and errors as in `pointing_game`.

    Source:
        Arras et al. 2022, "CLEVR-XAI"; Wickstrøm et al. 2023, Section 4.1.
    """
    values, places = flat(maps), _objects(maps, masks)
    return _on_object(values, places, [int(row.count_nonzero()) for row in places], seed)


def relevance_mass(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the share of the positive importance that lies on the object, `(B,)`; NaN where there is none.

    Unlike the other localisation scores it sees a map's zero point: see `rescale`.

    Arguments and errors as in `pointing_game`.

    Source:
        Arras et al. 2022, "CLEVR-XAI"; Møller et al. 2024, Section 4.
    """
    positive = flat(maps).clamp_min(0)
    inside = (positive * _objects(maps, masks)).sum(dim=1)
    return (inside / positive.sum(dim=1)).cpu()


def _objects(maps: Tensor, masks: Tensor) -> Tensor:
    """Return masks `(B, 1, H, W)` as `(B, H·W)`, where the maps lie; TypeError or ValueError where they do not fit."""
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        raise TypeError(f"masks must be a bool tensor, got {getattr(masks, 'dtype', type(masks).__name__)}.")
    if masks.shape != maps.shape:
        raise ValueError(f"masks must have the maps' shape {tuple(maps.shape)}, got {tuple(masks.shape)}.")
    found = masks.flatten(1).view(torch.uint8).amax(dim=1) > 0  # Ten times as fast as any().
    if not found.all():
        empty = int((~found).sum())
        raise ValueError(f"masks holds {empty} without a pixel, where no place is right; leave these images out.")
    return masks.flatten(1).to(maps.device)


def _on_object(values: Tensor, places: Tensor, counts: list[int], seed: int) -> Tensor:
    """Return the share on the object of each map's largest values, of which there are `counts`."""
    generator, shares = torch.Generator().manual_seed(seed), []
    for row, on, count in zip(values.cpu().numpy(), places.cpu().numpy(), counts, strict=True):
        least = np.partition(row, -count)[-count]  # several times as fast as torch's topk
        surely, ties = row > least, np.flatnonzero(row == least)
        wanted = count - np.count_nonzero(surely)
        if wanted < len(ties):  # Where the next value is as large as the last of them, chance decides.
            ties = ties[torch.randperm(len(ties), generator=generator)[:wanted].numpy()]
        shares.append((np.count_nonzero(surely & on) + np.count_nonzero(on[ties])) / count)
    return torch.tensor(shares, dtype=torch.float32)
