"""Explain representations without labels: which parts of an input, which examples, and how sure that is.

The names below are those that most users need; each room of the package has more. `encoders` (trained ones by name) and
`datasets` are imported by themselves, since what reads pictures is slow to import: `from lfx_utils import encoders`.
"""

from lfx_utils.examples import dknn, influence, represent, simplex, top, tracin
from lfx_utils.features import LabelFree, lafam
from lfx_utils.nemu import NEMU
from lfx_utils.relax import RELAX, u_relax

__all__ = [
    "NEMU", "RELAX", "LabelFree", "dknn", "influence", "lafam", "represent", "simplex", "top", "tracin", "u_relax",
]  # fmt: skip
