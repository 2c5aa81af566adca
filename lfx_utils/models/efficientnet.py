"""EfficientNet-Lite0 from timm's parts, its stages within reach by name."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from .resnet import Normalise


class ReLU6(nn.ReLU):
    """min(max(x, 0), 6), as a kind of `nn.ReLU`: explainers that hook every `nn.ReLU`, as guided backpropagation does,
    would pass over torch's own `nn.ReLU6` without a word."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs of any shape to the same shape."""
        return F.relu6(inputs)


def efficientnet_lite0() -> nn.Sequential:
    """EfficientNet-Lite0 of 1,000 classes, `(B, 3, H, W)` in [0, 1] to logits `(B, 1000)`; 4.65 million parameters.

    Its parts are named `normalise`, `stem` and `stage1` (half the image's side), `stage2` to `stage7` (a quarter, an
    eighth, a sixteenth twice, a thirty-second twice), `head`, `pool`, `flatten`, `classifier`; without the last it
    gives representations `(B, 1280)`.

    Raises:
        ModuleNotFoundError: timm is not installed.

    Source: Tan and Le (2019), EfficientNet; the Lite variant has neither squeeze-and-excitation nor swish.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("efficientnet-lite0 is built from timm's parts: `pip install timm`.") from error
    network = timm.create_model("tf_efficientnet_lite0")
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(part, name, ReLU6())  # not in place either: explainers need its input
    stages = {f"stage{number}": stage for number, stage in enumerate(network.blocks, 1)}
    return nn.Sequential(
        OrderedDict(
            normalise=Normalise(std=(0.5, 0.5, 0.5)),
            stem=nn.Sequential(network.conv_stem, network.bn1),
            **stages,
            head=nn.Sequential(network.conv_head, network.bn2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=network.classifier,
        )
    )
