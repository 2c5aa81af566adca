"""SimCLR for CIFAR-10: the ResNet-18 of LF Table 7, a smaller network for two cores, augmentation and loss."""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cifar_resnet18() -> nn.Module:
    """ResNet-18 for 32 × 32 images, `(B, 3, 32, 32)` to `(B, 512)`.

    The first convolution is 3 × 3 with stride 1 and the first pooling is gone, as SimCLR does for CIFAR-10.

    Source: LF, Table 7; Chen et al. 2020, Appendix B.9.
    """
    from torchvision.models import resnet18  # slow to import, and needed here alone

    network = resnet18(weights=None)
    network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    network.origin = "the ResNet-18 of LF Table 7"
    return network


def small_encoder(width: int = 32) -> nn.Sequential:
    """Four strided convolutions, `(B, 3, 32, 32)` to `(B, 4·width)`; what two cores can train while a reader waits."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip((3, width, 2 * width, 4 * width), (width, 2 * width, 4 * width, 4 * width)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder.origin = "a network of four convolutions"
    return encoder


def projected(encoder: nn.Module, features: int, hidden: int = 2048, output: int = 128) -> nn.Sequential:
    """Put the projection head f_p of LF Table 7 behind an encoder of `(B, features)`; its parts: `encoder`, `head`."""
    head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, output))
    return nn.Sequential(OrderedDict(encoder=encoder, head=head))


def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Crop, flip, recolour and sometimes drain every image of a batch, each with draws of its own.

    SimCLR's family for small images: a random resized crop (8 % to 100 % of the area), a horizontal flip, brightness,
    contrast and saturation jitter, and grey with probability 0.2. One affine grid serves the whole batch.

    Args:
        images: `(B, 3, H, W)` in [0, 1].
        generator: the source of randomness; the global one if absent.

    Returns:
        `(B, 3, H, W)` in [0, 1].

    Source: Chen et al. 2020, Appendix A.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), 1, 1, 1, generator=generator).to(images)

    side = uniform(0.08, 1).sqrt()
    ratio = torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)) / 2)
    width, height = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(images), 2, 3, device=images.device, dtype=images.dtype)
    theta[:, 0, 0] = (flip * width).flatten()
    theta[:, 1, 1] = height.flatten()
    theta[:, 0, 2] = (uniform(-1, 1) * (1 - width)).flatten()
    theta[:, 1, 2] = (uniform(-1, 1) * (1 - height)).flatten()
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    views = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    views = views * uniform(0.6, 1.4)
    mean = views.mean((1, 2, 3), keepdim=True)
    views = mean + (views - mean) * uniform(0.6, 1.4)
    grey = views.mean(1, keepdim=True)
    saturation = torch.where(uniform(0, 1) < 0.2, torch.zeros_like(side), uniform(0.6, 1.4))
    return (grey + (views - grey) * saturation).clamp(0, 1)


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    """Normalised-temperature cross-entropy between two views of the same batch.

    Args:
        first, second: projections `(B, P)`; row i of one is the positive of row i of the other.
        temperature: divides the cosine similarities.

    Returns:
        A scalar, in nats.

    Source: Chen et al. 2020, Eq. 1.
    """
    views = F.normalize(torch.cat([first, second]), dim=1)
    similarity = (views @ views.T / temperature).fill_diagonal_(float("-inf"))
    positives = torch.arange(len(views), device=views.device).roll(len(first))
    return F.cross_entropy(similarity, positives)
