"""Reading and writing models: configuration, vocabulary and weights, never code.

`save` writes a file that `torch.load(weights_only=True)` reads, or safetensors by its suffix. `load` reads both, and
state dicts of other programs (`arraylstm.foreign`).
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from arraylstm.errors import CheckpointError, one_line
from arraylstm.foreign import Described, Hints, Weights, check_tensors, describe, some
from arraylstm.foreign.described import refuse_hints
from arraylstm.lstm2002 import LSTM2002
from arraylstm.model import ItemModel
from arraylstm.modelfile import SAFETENSORS, read
from arraylstm.nextitem import NextItemModel
from arraylstm.vocabulary import Vocabulary

FORMAT = 1
MODELS: dict[str, type[ItemModel]] = {"NextItemModel": NextItemModel, "LSTM2002": LSTM2002}
"""The classes that files may name; a model of another class needs one more row here and nothing else."""


def save(model: ItemModel, path: str | Path) -> None:
    """Write class name, configuration, vocabulary, weights and `trained_on`; a `.safetensors` path selects that format.

    The file appears whole or not at all: it is written beside `path` and then given that name.

    Raises:
        ValueError: the model's class is not in `MODELS`, so that `load` could not construct it.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    kind = type(model).__name__
    if MODELS.get(kind) is not type(model):
        raise ValueError(f"cannot save a model of the class {kind}, which load does not know; it knows {_names()}")
    vocabulary = None if model.vocabulary is None else model.vocabulary.fields()
    header = {"arraylstm_format": FORMAT, "model": kind, "config": model.config, "vocabulary": vocabulary}
    header |= {} if model.trained_on is None else {"trained_on": model.trained_on}
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    target = Path(path)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        written = Path(folder) / "model"
        if target.suffix == SAFETENSORS:
            import safetensors.torch  # here, so that `import arraylstm` needs torch alone

            safetensors.torch.save_file(weights, written, {"arraylstm": json.dumps(header)})
        else:
            torch.save({**header, "state_dict": weights}, written)
        written.replace(target)


def load(path: str | Path, cell: str | None = None, vocabulary: Vocabulary | None = None, **hints: Any) -> ItemModel:
    """Read a model in eval mode.

    A state dict holds weights alone: the model leaves out what a network does without weights. Items may be fed as
    one-hot vectors, by an embedding, or, to an LSTM of one input, as the number of their id, as DeepLog does.

    Args:
        path: a file that `save` wrote; or, as torch or safetensors file, a state dict of `MyNetwork`, of a network
            around nn.LSTM or nn.LSTMCell, one or several on each other (with an output of one or two layers and as many
            outputs as there are items), of language-model-playground's LSTM2002 or of kLSTM.py's MarkovLSTM over
            one-hot items. Any of these may stand under a key of a training checkpoint. Of a network and its averaged
            copy (EMA) the network is taken, and that is logged.
        cell: the registry name of the cell, if a bare state dict's keys and shapes leave it open.
        vocabulary: the items' labels, for a file that has none.
        hints: what else a state dict leaves open: `weights`, `ignore`, `tied`, `no_embedding` and `activation`, the
            fields of `arraylstm.foreign.Hints`, which explains them.

    Raises:
        CheckpointError: the file is missing, truncated, of another kind, holds code, holds NaN or infinity, or its
            weights do not fit or can be read in several ways; a hint contradicts it; or the vocabulary has another
            size, or the file has its own. The message says which.
    """
    said = Hints(cell=cell, **hints)
    content = read(Path(path))
    try:
        ours = "arraylstm_format" in content
        described = _from_saved(content, said) if ours else describe(content, said)
        model = _build(_labelled(described, vocabulary), cell)
        model.trained_on = _trained_on(content) if ours else None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # a file can break its reader in countless ways
        raise CheckpointError(f"{path}: does not describe a model: {one_line(error)}") from None
    return model


def _build(described: Described, cell: str | None) -> ItemModel:
    name, config, weights, vocabulary = described
    if not isinstance(name, str) or name not in MODELS:
        raise CheckpointError(f"is a model of the class {name!r}; this version knows {_names()}")
    if max(config.get("num_layers", 1), config.get("n_lyr", 1)) > len(weights):
        raise CheckpointError(f"has more layers in its configuration than weights ({len(weights)})")
    with torch.device("meta"):  # sizes are compared before memory is taken
        model = MODELS[name].from_config(config, vocabulary)
    if cell not in (None, model.config["cell"]):
        raise CheckpointError(f"holds the cell {model.config['cell']!r}, not {cell!r}")
    _check_fit(model, weights)
    owned = {key: tensor.detach().clone(memory_format=torch.contiguous_format) for key, tensor in weights.items()}
    model.load_state_dict(owned, assign=True)  # copies: in a file they may share memory, and training writes to them
    model.to(model.like().dtype)
    _check_finite(model)
    return model.eval()


def _labelled(described: Described, vocabulary: Vocabulary | None) -> Described:
    """Return the model with the labels that the caller has for it, if any."""
    if vocabulary is None:
        return described
    if described.vocabulary is not None:
        raise CheckpointError("has a vocabulary of its own; none can be given for it")
    if len(vocabulary) != described.config["num_items"]:
        raise CheckpointError(
            f"has {described.config['num_items']} items, but the vocabulary given for it {len(vocabulary)} labels"
        )
    return described._replace(vocabulary=vocabulary)


def _names() -> str:
    return ", ".join(MODELS)


# -- contents -------------------------------------------------------------------------------------------------


def _from_saved(content: dict[str, Any], hints: Hints) -> Described:
    refuse_hints(hints, "a model of arraylstm", "cell")
    if content["arraylstm_format"] != FORMAT:
        raise CheckpointError(f"is of format {content['arraylstm_format']!r}; this version reads {FORMAT}")
    for key, kind in (("config", dict), ("state_dict", dict), ("vocabulary", dict | None)):
        if not isinstance(content.get(key), kind):
            raise CheckpointError(f"must have a dict as {key}, got {type(content.get(key)).__name__}")
    check_tensors(content["state_dict"])
    labels = content.get("vocabulary")
    vocabulary = None if labels is None else Vocabulary(**labels)
    name = content.get("model", NextItemModel.__name__)  # older files do not name the only class there was
    return Described(name, content["config"], content["state_dict"], vocabulary)


def _trained_on(content: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a file says of the data, which older files do not."""
    said = content.get("trained_on")
    if not isinstance(said, dict | None):
        raise CheckpointError(f"must have a dict as trained_on, got {type(said).__name__}")
    return said


def _check_fit(model: ItemModel, weights: Weights) -> None:
    """Raise CheckpointError unless the weights are those of the model by name, shape and kind of number."""
    expected = model.state_dict()
    lacking, left = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if lacking or left:
        lacks = [f"it lacks {some(sorted(lacking))}"] if lacking else []
        over = [f"left over: {some(sorted(left))}"] if left else []
        raise CheckpointError(f"these are not {model.config['cell']}'s weights; {'; '.join(lacks + over)}")
    for key, tensor in weights.items():
        if tensor.shape != expected[key].shape:
            raise CheckpointError(f"{key} must be {list(expected[key].shape)}, got {list(tensor.shape)}")
        if not tensor.is_floating_point():
            raise CheckpointError(f"{key} must hold floating-point numbers, got {tensor.dtype}")


def _check_finite(model: ItemModel) -> None:
    for key, tensor in model.state_dict().items():
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise CheckpointError(f"{key} holds {wrong} values that are NaN or infinite")
