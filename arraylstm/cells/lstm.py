"""LSTM: the Array-LSTM with a single lane (Rocki 2016, equations 3.1 to 3.6)."""

from arraylstm.cells.array import ArrayLSTM


class LSTM(ArrayLSTM):
    """LSTM layer, batch first, with the interface and weights of array-lstm 0.0.1.

    With k = 1 the sums of `ArrayLSTM` have one term, which is the LSTM:

        f, i, o = sigmoid(W x + U h + b);  g = tanh(W x + U h + b)
        c' = f * c + i * g;  h' = o * tanh(c')

    Args:
        input_size: I.
        hidden_size: H.
    """

    has_lanes = False

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, k=1)
