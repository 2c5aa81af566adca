"""Two views of a digit, one of them under noise: what multi-view methods are tried on."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Views:
    """Pairs of images that show the same digit by different hands.

    Args:
        clean: the first view, `(N, C, H, W)` in [0, 1].
        noisy: the second view, another image of the same class under noise, of the same shape.
        hidden: the second view before the noise; it says which of the noisy pixels are ink.
        labels: int64 `(N,)`.
    """

    clean: Tensor = field(repr=False)
    noisy: Tensor = field(repr=False)
    hidden: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)


def pair(images: Tensor, labels: Tensor, *, seed: int = 0) -> Views:
    """Pair every image with a random one of its class, to which uniform noise is added: min(1, x + u), u ~ U[0, 1].

    All that the two views of a pair have in common is the class. Wang et al. also rotate the first view by up to 45°,
    of which RELAX does not speak; it stays upright here.

    Args:
        images: `(N, C, H, W)` in [0, 1], such as a part of `load("mnist")`.
        labels: `(N,)`.
        seed: of a generator of its own.

    Raises:
        ValueError: no images, not images, values outside [0, 1], or another number of labels.

    Source: Wang, Arora, Livescu & Bilmes (2015), Noisy MNIST digits; Wickstrøm et al. 2023, Section 5.5.

    >>> views = pair(torch.rand(6, 1, 28, 28), torch.tensor([0, 1, 0, 1, 0, 1]))
    >>> views.noisy.shape, bool((views.noisy >= views.hidden).all())
    (torch.Size([6, 1, 28, 28]), True)
    """
    if images.dim() != 4 or not len(images):
        raise ValueError(f"images must be a non-empty batch (N, C, H, W), got shape {tuple(images.shape)}.")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be one for each of the {len(images)} images, got shape {tuple(labels.shape)}.")
    if not ((images >= 0) & (images <= 1)).all():
        raise ValueError("images must lie in [0, 1], since the noise is cut off at 1.")
    generator = torch.Generator().manual_seed(seed)
    partners = torch.empty(len(labels), dtype=torch.long)
    for kind in labels.unique():
        members = (labels == kind).nonzero()[:, 0]
        drawn = torch.randint(len(members), (len(members),), generator=generator)
        partners[members.cpu()] = members.cpu()[drawn]
    hidden = images[partners.to(images.device)]
    noise = torch.rand(images.shape, generator=generator).to(images)
    return Views(images, (hidden + noise).clamp_max(1), hidden, labels)
