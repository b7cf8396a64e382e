"""The registry of cells: a row here is all that training, scripting, export, parity checks and serving need."""

import inspect

from arraylstm.cells.array import ArrayLSTM
from arraylstm.cells.attention import AttentionArrayLSTM, MaxAttentionArrayLSTM
from arraylstm.cells.base import Cell
from arraylstm.cells.hard_attention import HardAttentionArrayLSTM, MaxLaneArrayLSTM, SemiHardAttentionArrayLSTM
from arraylstm.cells.lstm import LSTM
from arraylstm.cells.lstm2002 import PeepholeLSTM
from arraylstm.cells.markov import MarkovCell
from arraylstm.cells.memory_array import HalfStochasticMemoryArray, StochasticMemoryArray
from arraylstm.cells.recurrent_attention import RecurrentAttentionArrayLSTM
from arraylstm.cells.stochastic import StochasticArrayLSTM

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


def make_cell(name: str, input_size: int, hidden_size: int, k: int) -> Cell:
    """Construct the cell that the registry calls `name`; k reaches only cells that have lanes.

    Raises:
        ValueError: no cell has that name, a size is smaller than 1, or the cell overrides what only a layer used by
            itself calls.
    """
    if name not in CELLS:
        raise ValueError(f"unknown cell {name!r}; known cells: {', '.join(CELLS)}")
    cell = CELLS[name]
    for method in ("forward", "initHidden"):
        if issubclass(cell, ArrayLSTM) and getattr(cell, method) is not getattr(ArrayLSTM, method):
            raise ValueError(
                f"cell {name!r} overrides {method}, which a model does not call: it hands states on itself, from "
                "zeros; override update_hidden, forward_cell or step"
            )
    lanes = {"k": k} if "k" in inspect.signature(cell).parameters else {}
    return cell(input_size, hidden_size, **lanes)
