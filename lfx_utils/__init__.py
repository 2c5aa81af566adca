"""Explain representations without labels: the thin package behind the executable edition."""

from lfx_utils.features import LabelFree
from lfx_utils.session import start

__all__ = ["LabelFree", "start"]
