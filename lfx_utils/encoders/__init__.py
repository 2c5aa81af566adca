"""Trained encoders by name.

`shipped` come with this project, `published` with the papers; `pretraining` made the shipped ones.
"""

from lfx_utils.encoders.published import frozen, pretrained
from lfx_utils.encoders.shipped import card, load, names, weights

__all__ = ["card", "frozen", "load", "names", "pretrained", "weights"]
