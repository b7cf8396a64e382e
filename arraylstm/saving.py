"""Writing a trained model so that a full disk does not lose the training."""

import shutil
import sys
import tempfile
from pathlib import Path

from arraylstm.checkpoint import save
from arraylstm.errors import ArrayLSTMError, one_line
from arraylstm.model import ItemModel

_BLOCK = 2**20


class NotWrittenError(ArrayLSTMError):
    """A trained model could not be written where it was wanted; the message says why, and where it is instead."""


def try_to_write(model: ItemModel, target: Path) -> None:
    """Write the model beside the target, as large as it will be after training, and remove it again.

    Raises:
        ValueError: it cannot be written there, for lack of room or for another reason; the message says which.
    """
    folder = _scratch_folder(target.parent, f".{target.name}.")
    fault = _write(model, folder / target.name) if isinstance(folder, Path) else folder
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    if fault:
        raise ValueError(
            f"--output {str(target)!r} cannot be written: {fault}, for {_size(model) / 1e6:.1f} MB or more"
        )


def write(model: ItemModel, target: Path) -> None:
    """Write the model, or else a copy in the temporary or the home folder, or where a user at the terminal says.

    Raises:
        NotWrittenError: the target could not be written.
    """
    fault = _write(model, target)
    if fault:
        copy = _keep(model, target, fault)
        where = f"the trained model is in {str(copy)!r}" if copy else "no other place took the trained model"
        raise NotWrittenError(f"--output {str(target)!r} could not be written: {fault}; {where}")


def _keep(model: ItemModel, target: Path, fault: str) -> Path | None:
    """Write the model somewhere else; return where, or None if no place takes it."""
    for parent in (tempfile.gettempdir(), Path.home()):
        folder = _scratch_folder(Path(parent), "arraylstm-train-")
        if isinstance(folder, Path):
            if _write(model, folder / target.name) is None:
                return folder / target.name
            shutil.rmtree(folder, ignore_errors=True)
    return _ask(model, target, fault) if sys.stdin.isatty() else None


def _ask(model: ItemModel, target: Path, fault: str) -> Path | None:
    """Ask for another file until one takes the model; None if the answer is empty."""
    print(f"{target} could not be written: {fault}", file=sys.stderr)
    while answer := input("Another file for the trained model (nothing gives it up): ").strip():
        other = Path(answer).expanduser()
        fault = "it exists" if other.exists() else _write(model, other) or ""
        if not fault:
            return other
        print(f"{other} could not be written: {fault}", file=sys.stderr)
    return None


def _scratch_folder(parent: Path, prefix: str) -> Path | str:
    """Return a new folder, or why there is none."""
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        return _said(error)


def _write(model: ItemModel, target: Path) -> str | None:
    """Write the model; return None, or why it could not be written."""
    try:
        save(model, target)
    except Exception as error:  # file formats have errors of their own, and none may lose the training
        return _cause(error, target.parent, _size(model))
    return None


def _cause(error: Exception, folder: Path, size: int) -> str:
    """Return why a file of this size could not be written; torch does not say, so a plain file is tried."""
    if isinstance(error, OSError):
        return _said(error)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(size // _BLOCK + 2):
                file.write(bytes(_BLOCK))
            file.flush()
    except OSError as cause:
        return _said(cause)
    return one_line(error)


def _said(error: OSError) -> str:
    return error.strerror or one_line(error)


def _size(model: ItemModel) -> int:
    """Return the bytes of the weights; a file has a little more."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
