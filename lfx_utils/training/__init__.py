"""Training: one loop for one model, ensembles that train as one, and a penalty on overlapping latent units."""

from lfx_utils.training.loop import History, evaluate, fit

__all__ = ["History", "evaluate", "fit"]
