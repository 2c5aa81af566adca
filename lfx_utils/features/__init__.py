"""Which parts of an input: attributions of a representation that need no label.

`LabelFree` turns any Captum attribution into one of an encoder; `saliency` holds the gradient baselines of the RELAX
paper, `activations` LaFAM, `cocoa` contrastive corpus attributions.
"""

from lfx_utils.features.activations import lafam
from lfx_utils.features.cocoa import Normed, contrast
from lfx_utils.features.label_free import LabelFree, as_published

__all__ = ["LabelFree", "Normed", "as_published", "contrast", "lafam"]
