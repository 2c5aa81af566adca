"""Small residual networks: one for images of any size, its stages within reach by name, and CIFAR-10's."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalise(nn.Module):
    """Subtract a mean and divide by a deviation, one a channel, so that an encoder takes images in [0, 1]."""

    def __init__(self, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images `(B, 3, H, W)` to the same shape."""
        return (images - self.mean) / self.std


def small_resnet(widths: tuple[int, ...] = (16, 48, 96, 192)) -> nn.Sequential:
    """A stem and one residual block a stage, `(B, 3, H, W)` in [0, 1] to `(B, widths[-1])`; 0.68 million parameters.

    Its parts are named `normalise`, `stem` and `stage1` (both half the image's side), `stage2`, `stage3`, … (half of
    the stage before each), `pool`, `flatten`.

    Source: He et al. (2016), Deep residual learning, with torchvision's blocks.
    """
    from torchvision.models.resnet import BasicBlock  # slow to import, and not needed by whoever has an encoder

    inputs = widths[0]
    parts = OrderedDict(
        normalise=Normalise(),
        stem=nn.Sequential(nn.Conv2d(3, inputs, 3, 2, 1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()),
    )
    for stage, outputs in enumerate(widths, 1):
        stride = 1 if stage == 1 else 2
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        parts[f"stage{stage}"] = BasicBlock(inputs, outputs, stride, shortcut if stride > 1 else None)
        parts[f"stage{stage}"].relu.inplace = False  # explainers hook it, and need its input
        inputs = outputs
    return nn.Sequential(OrderedDict(parts, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))


class Padded(nn.Module):
    """The shortcut without parameters: every second pixel, and zeros for the new channels."""

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, 2C, H/2, W/2)`."""
        more = features.shape[1] // 2
        return F.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, more, more))


def cifar_resnet(depth: int = 20) -> nn.Sequential:
    """The ResNet for CIFAR-10 with padded shortcuts, normalised images `(B, 3, 32, 32)` to `(B, 64)`.

    Args:
        depth: 6n + 2 layers, the last of which, a linear one, is left out.

    Raises:
        ValueError: another depth.

    Source: He et al. (2016), Section 4.2, option A.
    """
    from torchvision.models.resnet import BasicBlock

    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6n + 2 with n ≥ 1, got {depth}.")
    parts = OrderedDict(conv1=nn.Conv2d(3, 16, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(16), relu=nn.ReLU())
    inputs = 16
    for stage, outputs in enumerate((16, 32, 64), 1):
        blocks = []
        for _ in range(depth // 6):
            grows = outputs > inputs
            blocks.append(BasicBlock(inputs, outputs, 1 + grows, Padded() if grows else None))
            blocks[-1].relu.inplace = False
            inputs = outputs
        parts[f"layer{stage}"] = nn.Sequential(*blocks)
    return nn.Sequential(OrderedDict(parts, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
