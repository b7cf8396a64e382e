"""The names under which array-lstm 0.0.1 offers its extensions."""

from arraylstm.cells.attention import AttentionArrayLSTM as AttentionArrayLSTM
from arraylstm.cells.stochastic import StochasticArrayLSTM as StochasticArrayLSTM
