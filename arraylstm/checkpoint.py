"""Reading and writing models: configuration, vocabulary and weights, never code.

`save` writes a file that `torch.load(weights_only=True)` reads, or safetensors by its suffix. `load` reads both, and a
bare state dict of the documentation's `MyNetwork` (`lstm.*`, `linear.*`).
"""

import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arraylstm.cells import CELLS
from arraylstm.errors import CheckpointError
from arraylstm.model import NextItemModel
from arraylstm.vocabulary import Vocabulary

FORMAT = 1
_INSTEAD = "save the weights alone instead, torch.save(model.state_dict(), path), and load that"


def save(model: NextItemModel, path: str | Path) -> None:
    """Write the model's configuration, vocabulary and weights to `path`; `.safetensors` selects that format."""
    header = {"arraylstm_format": FORMAT, "config": model.config, "vocabulary": _vocabulary_fields(model.vocabulary)}
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    if Path(path).suffix == ".safetensors":
        import safetensors.torch  # here, so that `import arraylstm` needs torch alone

        safetensors.torch.save_file(weights, path, {"arraylstm": json.dumps(header)})
    else:
        torch.save({**header, "state_dict": weights}, path)


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
    if "arraylstm_format" in content:
        model, weights = _from_saved(path, content)
    else:
        model, weights = _from_my_network(path, content, cell)
    _check_finite(path, weights)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: {_one_line(error)}") from None
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
        header = json.loads(metadata["arraylstm"]) if "arraylstm" in metadata else {}
    except (safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {_one_line(error)}") from None
    return {**header, "state_dict": weights} if header else weights


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
        raise CheckpointError(f"{path}: not a readable torch file, or truncated: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a model or a state dict")
    return content


def _explain_refusal(message: str) -> str:
    refused = re.search(r"(?:GLOBAL|global:?)\s+([\w.]+\.\w+)", message)
    if refused:
        return f"needs the code of {refused[1]} to be run when it is read, which is refused; {_INSTEAD}"
    return f"not a torch file, or one that runs code when it is read, which is refused; {_INSTEAD}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


# -- contents -------------------------------------------------------------------------------------------------


def _from_saved(path: str | Path, content: dict[str, Any]) -> tuple[NextItemModel, dict[str, Tensor]]:
    if content["arraylstm_format"] != FORMAT:
        raise CheckpointError(f"{path}: is of format {content['arraylstm_format']!r}; this version reads {FORMAT}")
    try:
        labels = content["vocabulary"]
        vocabulary = None if labels is None else Vocabulary(**labels)
        model = NextItemModel(**content["config"], vocabulary=vocabulary)
        return _like(content["state_dict"], model)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: does not describe a model: {_one_line(error)}") from None


def _from_my_network(
    path: str | Path, weights: dict[str, Any], cell: str | None
) -> tuple[NextItemModel, dict[str, Tensor]]:
    needed = ("lstm.i2h.weight", "lstm.h2h.weight", "linear.weight", "linear.bias")
    missing = [key for key in needed if not isinstance(weights.get(key), Tensor) or weights[key].dim() == 0]
    if missing:
        raise CheckpointError(
            f"{path}: is neither an arraylstm model nor a MyNetwork state dict: it lacks {', '.join(missing)}"
        )
    rows, num_items = weights["lstm.i2h.weight"].shape
    outputs, hidden_size = weights["linear.weight"].shape
    if outputs != num_items or rows % (4 * hidden_size):
        raise CheckpointError(
            f"{path}: lstm.i2h.weight {[rows, num_items]} and linear.weight {[outputs, hidden_size]} do not fit a "
            "next-item model: as many outputs as inputs and a multiple of 4 * hidden_size rows are needed"
        )
    k = rows // (4 * hidden_size)
    name = cell or _cell_of(path, k, attention="lstm.i2a.weight" in weights)
    renamed = {re.sub(r"^lstm\.", "cells.0.", key): tensor for key, tensor in weights.items()}
    try:
        return _like(renamed, NextItemModel(name, num_items, hidden_size, k=k))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _cell_of(path: str | Path, k: int, attention: bool) -> str:
    if k == 1 and not attention:
        return "lstm"
    raise CheckpointError(
        f"{path}: is a bare state dict with k={k}{' and attention' if attention else ''}, whose keys do not tell the "
        f"cell; name it (cell=..., --cell): one of {', '.join(CELLS)}"
    )


def _like(weights: dict[str, Tensor], model: NextItemModel) -> tuple[NextItemModel, dict[str, Tensor]]:
    """Give the model the dtype of the weights it is about to load."""
    return model.to(weights["linear.weight"].dtype), weights


def _check_finite(path: str | Path, weights: dict[str, Tensor]) -> None:
    for key, tensor in weights.items():
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise CheckpointError(f"{path}: {key} holds {wrong} values that are NaN or infinite")


def _vocabulary_fields(vocabulary: Vocabulary | None) -> dict[str, Any] | None:
    return None if vocabulary is None else {"labels": vocabulary.labels, "unknown": vocabulary.unknown}
