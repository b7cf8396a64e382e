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
from arraylstm.cells.hard_attention import HardAttentionArrayLSTM as HardAttentionArrayLSTM
from arraylstm.cells.hard_attention import MaxLaneArrayLSTM as MaxLaneArrayLSTM
from arraylstm.cells.hard_attention import SemiHardAttentionArrayLSTM as SemiHardAttentionArrayLSTM
from arraylstm.cells.lstm import LSTM as LSTM
from arraylstm.cells.lstm2002 import LSTM2002Layer as LSTM2002Layer
from arraylstm.cells.markov import MarkovCell as MarkovCell
from arraylstm.cells.memory_array import HalfStochasticMemoryArray as HalfStochasticMemoryArray
from arraylstm.cells.memory_array import StochasticMemoryArray as StochasticMemoryArray
from arraylstm.cells.recurrent_attention import RecurrentAttentionArrayLSTM as RecurrentAttentionArrayLSTM
from arraylstm.cells.stochastic import StochasticArrayLSTM as StochasticArrayLSTM
from arraylstm.checkpoint import load as load
from arraylstm.checkpoint import save as save
from arraylstm.convert import LSTMStack as LSTMStack
from arraylstm.convert import from_torch as from_torch
from arraylstm.convert import to_torch as to_torch
from arraylstm.errors import ArrayLSTMError as ArrayLSTMError
from arraylstm.errors import CheckpointError as CheckpointError
from arraylstm.errors import DataError as DataError
from arraylstm.errors import UnknownItemError as UnknownItemError
from arraylstm.lstm2002 import LSTM2002 as LSTM2002
from arraylstm.markov import MarkovLSTM as MarkovLSTM
from arraylstm.model import ItemModel as ItemModel
from arraylstm.model import NextItemModel as NextItemModel
from arraylstm.plot import plot_lanes as plot_lanes
from arraylstm.stack import Stack as Stack
from arraylstm.stack import make_stack as make_stack
from arraylstm.vocabulary import Vocabulary as Vocabulary

try:
    __version__ = version("arraylstm-serving")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"
