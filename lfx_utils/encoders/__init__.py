"""Trained encoders by name.

`shipped` come with this project, `published` with the papers, `hubs` are a reader's own; `pretraining` and `imagenet`
made the shipped ones.
"""

from lfx_utils.encoders.folding import folded
from lfx_utils.encoders.hubs import from_hugging_face, from_timm, from_torchvision
from lfx_utils.encoders.published import frozen, pretrained
from lfx_utils.encoders.shipped import card, classifier, load, names, snapshots, untrained, weights

__all__ = [
    "card", "classifier", "folded", "from_hugging_face", "from_timm", "from_torchvision", "frozen", "load", "names",
    "pretrained", "snapshots", "untrained", "weights",
]  # fmt: skip
