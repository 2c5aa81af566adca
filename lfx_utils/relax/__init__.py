"""RELAX: which parts of an input keep its representation where it is, and how sure that is.

An input is masked at random many times; a pixel matters if the representations stay similar to the whole input's while
it is kept. `masks` says what is hidden, `estimators` turns similarities and masks into maps, `control` does so with
fewer masks, `bounds` says how large the error can be, and `explainer` joins them as `RELAX(encoder).attribute(images)`;
`tokens` does so for the words of a text.
"""

from lfx_utils.relax.bounds import bound_error, bound_masks, half_width
from lfx_utils.relax.estimators import Moments, cosine, dot, rbf, two_pass, u_relax
from lfx_utils.relax.evidence import Evidence
from lfx_utils.relax.explainer import RELAX
from lfx_utils.relax.masks import Blocks, Cells, Pixels, blur, noise
from lfx_utils.relax.tokens import relax_words

__all__ = [
    "RELAX", "Evidence", "Moments", "Cells", "Pixels", "Blocks", "noise", "blur", "cosine", "dot", "rbf",
    "two_pass", "u_relax", "relax_words", "bound_error", "bound_masks", "half_width",
]  # fmt: skip
