"""What can go wrong with a user's input; every message names the value seen and the value allowed."""


class ArrayLSTMError(Exception):
    """Base of the errors that arraylstm raises about files and data it was given."""


def one_line(error: BaseException) -> str:
    """Return another package's error message on one line, cut to 300 characters."""
    return " ".join(str(error).split())[:300]


class CheckpointError(ArrayLSTMError):
    """A model file cannot be read, is unsafe to read, or does not fit the model it claims to be."""


class DataError(ArrayLSTMError):
    """An event file cannot be read as sessions of items."""


class UnknownItemError(ArrayLSTMError, KeyError):
    """A label is not in the vocabulary, and the vocabulary has no unknown item to stand for it."""

    def __str__(self) -> str:
        """Return the message itself: KeyError would show its repr."""
        return str(self.args[0])
