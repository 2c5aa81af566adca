"""Example importance: which training examples a representation rests on.

Every method maps a batch of test examples and a training set to scores `(n_test, n_train)`; `top` turns
scores into proponents and opponents. The representation-based methods, DKNN and SimplEx, take
representations (`represent` makes them), the loss-based ones, TracIn and influence functions, take the model
and the loss it was trained with. Training sets that do not fit into memory go through `shard` batch by batch,
and `merge` joins what shards found.
"""

from lfx_utils.examples.contrastive import contrastive
from lfx_utils.examples.influence import influence
from lfx_utils.examples.neighbours import dknn
from lfx_utils.examples.ranking import similarity_rates, top
from lfx_utils.examples.representation import represent
from lfx_utils.examples.shards import merge, near, scored, shard
from lfx_utils.examples.simplex import simplex
from lfx_utils.examples.tracin import tracin

__all__ = [
    "contrastive",
    "dknn",
    "influence",
    "merge",
    "near",
    "represent",
    "scored",
    "shard",
    "similarity_rates",
    "simplex",
    "top",
    "tracin",
]
