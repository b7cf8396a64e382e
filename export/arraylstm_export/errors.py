"""What can go wrong in an export."""

from arraylstm import ArrayLSTMError


class ExportError(ArrayLSTMError):
    """The model cannot be exported, or the target cannot be written; nothing was left under its name."""
