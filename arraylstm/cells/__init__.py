"""The registry of cells: a row here is all that training, scripting, export, parity checks and serving need."""

from typing import TYPE_CHECKING

from arraylstm.cells.array import ArrayLSTM as ArrayLSTM
from arraylstm.cells.attention import AttentionArrayLSTM as AttentionArrayLSTM
from arraylstm.cells.attention import MaxAttentionArrayLSTM as MaxAttentionArrayLSTM
from arraylstm.cells.base import Cell as Cell
from arraylstm.cells.conformance import check_cell, construct
from arraylstm.cells.hard_attention import HardAttentionArrayLSTM as HardAttentionArrayLSTM
from arraylstm.cells.hard_attention import MaxLaneArrayLSTM as MaxLaneArrayLSTM
from arraylstm.cells.hard_attention import SemiHardAttentionArrayLSTM as SemiHardAttentionArrayLSTM
from arraylstm.cells.lstm import LSTM as LSTM
from arraylstm.cells.lstm2002 import PeepholeLSTM as PeepholeLSTM
from arraylstm.cells.markov import MarkovCell as MarkovCell
from arraylstm.cells.memory_array import HalfStochasticMemoryArray as HalfStochasticMemoryArray
from arraylstm.cells.memory_array import StochasticMemoryArray as StochasticMemoryArray
from arraylstm.cells.recurrent_attention import RecurrentAttentionArrayLSTM as RecurrentAttentionArrayLSTM
from arraylstm.cells.stochastic import StochasticArrayLSTM as StochasticArrayLSTM

CELLS: dict[str, type[Cell]] = {
    "lstm": LSTM,
    "array": ArrayLSTM,
    "attention": AttentionArrayLSTM,
    "attention-max": MaxAttentionArrayLSTM,
    "stochastic": StochasticArrayLSTM,
    "attention-recurrent": RecurrentAttentionArrayLSTM,
    "max-lane": MaxLaneArrayLSTM,
    "attention-semi-hard": SemiHardAttentionArrayLSTM,
    "attention-hard": HardAttentionArrayLSTM,
    "stochastic-memory": StochasticMemoryArray,
    "stochastic-memory-half": HalfStochasticMemoryArray,
    "lstm2002": PeepholeLSTM,
    "markov": MarkovCell,
}

if not TYPE_CHECKING:  # which reads the imports above
    __all__ = ["CELLS", "Cell", *(cell.__name__ for cell in CELLS.values())]


def make_cell(name: str, input_size: int, hidden_size: int, k: int) -> Cell:
    """Construct the cell that the registry calls `name`; k reaches only cells that have lanes.

    Raises:
        ValueError: no cell has that name, a size is smaller than 1, or the class breaks a rule of `Cell`.
    """
    if name not in CELLS:
        raise ValueError(f"unknown cell {name!r}; known cells: {', '.join(CELLS)}")
    check_cell(name, CELLS[name])
    return construct(CELLS[name], input_size, hidden_size, k)
