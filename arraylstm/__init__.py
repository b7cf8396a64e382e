"""Array-LSTM cells and next-item models in PyTorch.

Names used throughout, in shapes and in the cells' equations:

    B batch   S steps   I input size   H hidden size   k lanes (memory cells a unit)   L layers   V items   E embedding
    x input   h hidden state   c memory cells   f, i, o forget, input and output gates   g candidate   a pre-activation

Equation numbers are those of K. Rocki, "Recurrent Memory Array Structures", arXiv 1607.03085v2.
"""

from importlib.metadata import PackageNotFoundError, version

from arraylstm.cells import CELLS as CELLS
from arraylstm.cells.array import ArrayLSTM as ArrayLSTM
from arraylstm.cells.attention import AttentionArrayLSTM as AttentionArrayLSTM
from arraylstm.cells.attention import MaxAttentionArrayLSTM as MaxAttentionArrayLSTM
from arraylstm.cells.base import Cell as Cell
from arraylstm.cells.lstm import LSTM as LSTM
from arraylstm.cells.stochastic import StochasticArrayLSTM as StochasticArrayLSTM
from arraylstm.checkpoint import load as load
from arraylstm.checkpoint import save as save
from arraylstm.errors import ArrayLSTMError as ArrayLSTMError
from arraylstm.errors import CheckpointError as CheckpointError
from arraylstm.errors import DataError as DataError
from arraylstm.errors import UnknownItemError as UnknownItemError
from arraylstm.model import NextItemModel as NextItemModel
from arraylstm.vocabulary import Vocabulary as Vocabulary

try:
    __version__ = version("arraylstm")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"
