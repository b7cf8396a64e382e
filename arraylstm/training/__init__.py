"""Fitting a next-item model to sessions of item ids, and measuring how well it predicts.

batches   sessions as pieces of similar length, long ones in several that carry their state
losses    what is minimised: the full softmax, or a loss over the target and a sample of items
forward   how a model is run while it learns: torch's LSTM kernel, a compiled step, bf16
schedules how the learning rate moves, and the average of the weights
measure   `Metrics` and `evaluate`
choosing  which epoch is kept, and when a fit ends
recipes   the settings that suit the data, with the reason
snapshots what an interrupted fit goes on from
calibrate how scores of other losses become probabilities
loop      `fit`, which puts these together
"""

from arraylstm.training.loop import fit as fit
from arraylstm.training.measure import Metrics as Metrics
from arraylstm.training.measure import count_predictions as count_predictions
from arraylstm.training.measure import evaluate as evaluate
from arraylstm.training.options import TrainingOptions as TrainingOptions
from arraylstm.training.progress import Outcome as Outcome
from arraylstm.training.progress import Progress as Progress
