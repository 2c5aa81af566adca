"""Trained encoders by name.

`shipped` come with this project, `published` with the papers; `pretraining` and `imagenet` made the shipped ones.
"""

from lfx_utils.encoders.published import frozen, pretrained
from lfx_utils.encoders.shipped import card, classifier, load, names, untrained, weights

__all__ = ["card", "classifier", "frozen", "load", "names", "pretrained", "untrained", "weights"]
