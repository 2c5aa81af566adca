"""How good a map is, how alike two maps are, what a representation knows.

Maps: `localisation`, `concentration`, `faithfulness`, `shift`, `agreement`; `maps` holds what they start from. Latent
units: `overlap`, `disentanglement`. Representations: `probes`, `invariance`. `intervals` says how sure a mean is.
"""

from lfx_utils.measures.agreement import pearson, pearson_per_example
from lfx_utils.measures.concentration import complexity, sparseness
from lfx_utils.measures.faithfulness import monotonicity
from lfx_utils.measures.intervals import crossed_interval, mean_interval, slope_interval
from lfx_utils.measures.localisation import pointing_game, relevance_mass, relevance_rank, top_k
from lfx_utils.measures.maps import rescale
from lfx_utils.measures.shift import latent_shift, mask_most_important

__all__ = [
    "complexity", "crossed_interval", "latent_shift", "mask_most_important", "mean_interval", "monotonicity", "pearson",
    "pearson_per_example", "pointing_game", "relevance_mass", "relevance_rank", "rescale", "slope_interval",
    "sparseness", "top_k",
]  # fmt: skip
