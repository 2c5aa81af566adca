"""Which parts of an input: attributions of a representation that need no label.

`LabelFree` turns any Captum attribution into one of an encoder; `saliency` holds the gradient baselines of the RELAX
paper, `activations` LaFAM, `cocoa` contrastive corpus attributions. `pairs` says which parts of two inputs make their
representations alike, and `tokens` explains texts.
"""

from lfx_utils.features.activations import lafam
from lfx_utils.features.cocoa import Normed, contrast
from lfx_utils.features.decomposition import Decomposition, decompose, patches
from lfx_utils.features.label_free import LabelFree, as_published
from lfx_utils.features.pairs import Interactions, interactions
from lfx_utils.features.tokens import Embedded, decompose_tokens, per_word, token_importance

__all__ = [
    "Decomposition", "Embedded", "Interactions", "LabelFree", "Normed", "as_published", "contrast", "decompose",
    "decompose_tokens", "interactions", "lafam", "patches", "per_word", "token_importance",
]  # fmt: skip
