"""The decoder half of a U-Net, from an encoder's feature maps to one mask: as large as the paper's, or thin."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STANDARD = (256, 128, 64, 32, 16)


class UNetDecoder(nn.Module):
    """Turn feature maps of falling resolution into one mask a picture.

    From the deepest map upwards: enlarge to the next map's size, put that map beside it, convolve twice; the last step
    enlarges to the picture. On a ResNet-50 and with the standard widths this has 9.0 million parameters, which is the
    size that the paper gives for its smallest decoder.

    Args:
        skips: channels of each map, from the shallowest to the deepest.
        channels: widths from the deepest step to the last; the last `len(skips)` of them are used.

    Raises:
        ValueError: no map, or more maps than widths.

    Source:
        Ronneberger et al. 2015, "U-Net"; NU, Section 3.3 and 4.1.

    >>> maps = [torch.rand(2, 8, 16, 16), torch.rand(2, 32, 8, 8)]
    >>> UNetDecoder([8, 32], channels=(16, 8))(maps, (32, 32)).shape
    torch.Size([2, 1, 32, 32])
    """

    def __init__(self, skips: Sequence[int], channels: Sequence[int] = STANDARD):
        super().__init__()
        if not 0 < len(skips) <= len(channels):
            raise ValueError(f"skips must name from 1 to {len(channels)} maps, one a width, got {len(skips)}.")
        steps, inputs = [], skips[-1]
        for beside, outputs in zip((*skips[-2::-1], 0), channels[-len(skips) :], strict=True):
            steps.append(nn.Sequential(*_convolved(inputs + beside, outputs), *_convolved(outputs, outputs)))
            inputs = outputs
        self.steps, self.head = nn.ModuleList(steps), nn.Conv2d(inputs, 1, 3, padding=1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features `[(B, C, h, w), …]`, shallowest first, and the picture's size to a mask `(B, 1, *size)`."""
        x = maps[-1]
        for step, beside in zip(self.steps, maps[-2::-1], strict=False):
            x = step(torch.cat([_enlarged(x, beside.shape[-2:]), beside], dim=1))
        return torch.sigmoid(self.head(self.steps[-1](_enlarged(x, size))))


class ThinDecoder(nn.Module):
    """A U-Net's decoder that costs less than the small encoders it serves.

    Each map is first brought to a few channels, a step convolves once, and the mask is drawn at the shallowest map's
    size and then enlarged.

    Args:
        skips: channels of each map, from the shallowest to the deepest.
        width: channels at every step.

    Raises:
        ValueError: no map.

    >>> maps = [torch.rand(2, 8, 16, 16), torch.rand(2, 32, 8, 8)]
    >>> ThinDecoder([8, 32])(maps, (32, 32)).shape
    torch.Size([2, 1, 32, 32])
    """

    def __init__(self, skips: Sequence[int], width: int = 8):
        super().__init__()
        if not skips:
            raise ValueError("skips must name at least one map, got none.")
        self.narrow = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in skips)
        self.steps = nn.ModuleList(nn.Sequential(*_convolved(2 * width, width)) for _ in skips[1:])
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Map features `[(B, C, h, w), …]`, shallowest first, and the picture's size to a mask `(B, 1, *size)`."""
        *shallow, x = (narrow(each) for narrow, each in zip(self.narrow, maps, strict=True))
        for step, beside in zip(self.steps, reversed(shallow), strict=True):
            x = step(torch.cat([_enlarged(x, beside.shape[-2:]), beside], dim=1))
        return torch.sigmoid(_enlarged(self.head(x), size))


def _enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def _convolved(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
