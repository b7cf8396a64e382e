"""Figures of quality from streams of predictions, in memory that does not grow with them.

All are counted from ranks, as `ranks.ranks` gives them. For a rank r of the item that followed, and a list of k items:
hit@k is the share of r <= k, MRR@k the mean of 1/r and NDCG@k that of 1/log2(1 + r), both 0 where r > k. recall@k is
the share of the session's remaining items that the list holds. An item that the model does not know is never a hit.
"""

from arraylstm.metrics.comparison import Comparison as Comparison
from arraylstm.metrics.predictions import NOWHERE as NOWHERE
from arraylstm.metrics.predictions import Predictions as Predictions
from arraylstm.metrics.predictions import judge as judge
from arraylstm.metrics.predictions import recall as recall
from arraylstm.metrics.tally import Tally as Tally
