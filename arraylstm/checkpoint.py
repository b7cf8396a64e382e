"""Reading and writing models: configuration, vocabulary and weights, never code.

`save` writes a file that `torch.load(weights_only=True)` reads, or safetensors by its suffix. `load` reads both, and a
bare state dict of the documentation's `MyNetwork` (`lstm.*`, `linear.*`).
"""

import json
import pickle
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arraylstm.cells import CELLS
from arraylstm.errors import CheckpointError, one_line
from arraylstm.model import NextItemModel
from arraylstm.vocabulary import Vocabulary

FORMAT = 1
_INSTEAD = "save the weights alone instead, torch.save(model.state_dict(), path), and load that"


def save(model: NextItemModel, path: str | Path) -> None:
    """Write the model's configuration, vocabulary and weights to `path`; `.safetensors` selects that format.

    The file appears whole or not at all: it is written beside `path` and then given that name.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    vocabulary = None if model.vocabulary is None else model.vocabulary.fields()
    header = {"arraylstm_format": FORMAT, "config": model.config, "vocabulary": vocabulary}
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    target = Path(path)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        written = Path(folder) / "model"
        if target.suffix == ".safetensors":
            import safetensors.torch  # here, so that `import arraylstm` needs torch alone

            safetensors.torch.save_file(weights, written, {"arraylstm": json.dumps(header)})
        else:
            torch.save({**header, "state_dict": weights}, written)
        written.replace(target)


def load(path: str | Path, cell: str | None = None) -> NextItemModel:
    """Read a model in eval mode.

    Args:
        path: a file that `save` wrote, or a `MyNetwork` state dict saved with torch or safetensors.
        cell: the registry name of the cell, where a bare state dict's keys and shapes do not tell.

    Raises:
        CheckpointError: the file is missing, truncated, of another kind, holds code, holds NaN or infinity, or its
            weights do not fit; the message says which.
    """
    content = _read(Path(path))
    try:
        return _build(content, cell)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # what a file may hold to break the reading of it has no end
        raise CheckpointError(f"{path}: does not describe a model: {one_line(error)}") from None


def _build(content: dict[str, Any], cell: str | None) -> NextItemModel:
    with torch.device("meta"):  # sizes are compared before memory is taken
        model, weights = _from_saved(content) if "arraylstm_format" in content else _from_my_network(content, cell)
    if cell not in (None, model.config["cell"]):
        raise CheckpointError(f"holds the cell {model.config['cell']!r}, not {cell!r}")
    _check_tensors(weights)
    model.load_state_dict(weights, assign=True)
    model.to(weights["linear.weight"].dtype)
    _check_finite(model)
    return model.eval()


# -- files ----------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    import safetensors  # here, so that `import arraylstm` needs torch alone

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        saved = {**json.loads(metadata["arraylstm"]), "state_dict": weights} if "arraylstm" in metadata else None
    except (safetensors.SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {one_line(error)}") from None
    return saved or weights


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's hints about files that are refused just below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_explain_refusal(str(error))}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path}: is a TorchScript program, not weights; {_INSTEAD}") from None
        raise CheckpointError(f"{path}: not a readable torch file, or truncated: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a model or a state dict")
    return content


def _explain_refusal(message: str) -> str:
    refused = re.search(r"(?:GLOBAL|global:?)\s+([\w.]+\.\w+)", message)
    if refused:
        return f"needs the code of {refused[1]} to be run when it is read, which is refused; {_INSTEAD}"
    return f"not a torch file, or one that runs code when it is read, which is refused; {_INSTEAD}"


# -- contents -------------------------------------------------------------------------------------------------


def _from_saved(content: dict[str, Any]) -> tuple[NextItemModel, dict[str, Tensor]]:
    if content["arraylstm_format"] != FORMAT:
        raise CheckpointError(f"is of format {content['arraylstm_format']!r}; this version reads {FORMAT}")
    labels = content["vocabulary"]
    vocabulary = None if labels is None else Vocabulary(**labels)
    return NextItemModel(**content["config"], vocabulary=vocabulary), content["state_dict"]


def _from_my_network(weights: dict[str, Any], cell: str | None) -> tuple[NextItemModel, dict[str, Tensor]]:
    needed = ("lstm.i2h.weight", "lstm.h2h.weight", "linear.weight", "linear.bias")
    missing = [key for key in needed if not isinstance(weights.get(key), Tensor) or weights[key].dim() == 0]
    if missing:
        raise CheckpointError(
            f"is neither an arraylstm model nor a MyNetwork state dict: it lacks {', '.join(missing)}"
        )
    rows, num_items = weights["lstm.i2h.weight"].shape
    outputs, hidden_size = weights["linear.weight"].shape
    if outputs != num_items or rows % (4 * hidden_size):
        raise CheckpointError(
            f"lstm.i2h.weight {[rows, num_items]} and linear.weight {[outputs, hidden_size]} do not fit a "
            "next-item model: as many outputs as inputs and a multiple of 4 * hidden_size rows are needed"
        )
    k = rows // (4 * hidden_size)
    name = cell or _cell_of(k, attention="lstm.i2a.weight" in weights)
    renamed = {re.sub(r"^lstm\.", "cells.0.", key): tensor for key, tensor in weights.items()}
    return NextItemModel(name, num_items, hidden_size, k=k), renamed


def _cell_of(k: int, attention: bool) -> str:
    if k == 1 and not attention:
        return "lstm"
    raise CheckpointError(
        f"is a bare state dict with k={k}{' and attention' if attention else ''}, whose keys do not tell the "
        f"cell; name it (cell=..., --cell): one of {', '.join(CELLS)}"
    )


def _check_tensors(weights: dict[str, Tensor]) -> None:
    for key, tensor in weights.items():
        dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided
        if not isinstance(key, str) or not dense or not tensor.is_floating_point():
            raise CheckpointError(f"{key!r} is not a dense tensor of floating-point numbers")


def _check_finite(model: NextItemModel) -> None:
    for key, tensor in model.state_dict().items():
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise CheckpointError(f"{key} holds {wrong} values that are NaN or infinite")
