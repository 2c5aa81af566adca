"""Explain representations without labels: which parts of an input, which examples, and how sure that is."""

from lfx_utils.features import LabelFree

__all__ = ["LabelFree"]
