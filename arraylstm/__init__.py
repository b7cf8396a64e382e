"""Array-LSTM cells and next-item models in PyTorch.

Names used throughout, in shapes and in the cells' equations. The papers' symbols, where they are others, stand behind.

    B   batch: rows, one sequence each          V   items of the vocabulary
    S   steps of a sequence (T)                 E   width of the item embedding
    I   input size (n, in_feat)                 P   width of what `Cell.project` gives
    H   hidden size (m, D = n_blk * d_blk)      L   layers
    k   lanes: memory cells a unit (K, n_k)     j   one of the lanes (k, i)

    x   input                                   W, U, b   weights of x and of h, and biases
    h   hidden state, the output                V   peephole weights of c, in `LSTM2002Layer` alone
    c   memory cells                            a   pre-activation, W x + U h + b
    f   forget gate                             s   a lane's weight in attention, sums to 1
    i   input gate                              p   probability of a lane
    o   output gate                             z, m   1 for the lanes that take part in a step, else 0
    g   candidate (c~, u)                       q   probability of a lane in the Markov network
    '   the next value: h', c'                  tau, e   its temperature and its Gumbel noise

Equation numbers are those of K. Rocki, "Recurrent Memory Array Structures", arXiv 1607.03085v2.
"""

from importlib.metadata import PackageNotFoundError, version

from arraylstm.cells import *  # noqa: F403 - every class in the registry, CELLS and Cell
from arraylstm.cells.lstm2002 import LSTM2002Layer as LSTM2002Layer
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
from arraylstm.nextitem import NextItemModel as NextItemModel
from arraylstm.plot import plot_lanes as plot_lanes
from arraylstm.stack import Stack as Stack
from arraylstm.stack import make_stack as make_stack
from arraylstm.vocabulary import Vocabulary as Vocabulary

try:
    __version__ = version("arraylstm-serving")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"
