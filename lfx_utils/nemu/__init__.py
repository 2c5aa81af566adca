"""NEM-U: an encoder that explains itself in the pass that makes its representation.

`objective` says what a good mask is, `skips` finds the encoder's own features, `training` fits a decoder that predicts
the mask from them, `explainer` joins these as `NEMU(encoder).fit(images).attribute(images)`, and `refinement` improves
the mask of a single image. `files` keeps explainers, and `shipped` has those that this project trained.
"""

from lfx_utils.nemu.explainer import NEMU
from lfx_utils.nemu.files import load, save
from lfx_utils.nemu.objective import Objective, Terms, halved, printed, statistics, unhalved
from lfx_utils.nemu.refinement import refine
from lfx_utils.nemu.training import fit_together, prodigy

__all__ = [
    "NEMU", "Objective", "Terms", "fit_together", "halved", "load", "printed", "prodigy", "refine", "save",
    "statistics", "unhalved",
]  # fmt: skip
