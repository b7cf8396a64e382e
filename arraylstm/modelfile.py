"""Files of weights: what a file is, whatever its name says, and its content; no code in a file is ever run.

A torch file is unpickled by `torch.load(weights_only=True)`. Plain data that training programs keep beside the weights
(numbers of NumPy, dates, paths, argparse.Namespace) becomes a placeholder, so that no constructor is called but ours.
"""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from arraylstm.errors import CheckpointError, one_line

INSTEAD = "save the weights alone instead, torch.save(model.state_dict(), path), and load that"
SAFETENSORS = ".safetensors"

SIGNATURES = {
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x93NUMPY": "a NumPy array",
}
"""What other files begin with."""

MEMBERS = {
    r"(^|/)(archive_format|models/.*|serialized_exported_program\.json)$": "a program of torch.export (.pt2)",
    r"\.npy$": "an archive of NumPy arrays",
    r"\.h5$": "a Keras model",
}
"""What other archives hold; TorchScript is known by torch itself."""


def read(path: Path) -> dict[str, Any]:
    """Return the content of a torch or safetensors file: a model that `save` wrote, or a state dict.

    Raises:
        CheckpointError: the file is missing, truncated, of another kind, or holds code.
    """
    if (path / "manifest.json").is_file():
        raise CheckpointError(f"{path}: is a bundle, exported already; give the model that it was made from")
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    try:
        kind = _other_kind(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if kind is not None:
        raise CheckpointError(f"{path}: is {kind}, not a file of weights of torch or safetensors; {INSTEAD}")
    return _read_safetensors(path) if path.suffix == SAFETENSORS else _read_torch(path)


def _other_kind(path: Path) -> str | None:
    """Return what a file is that its name makes something else; None if it may be what its name says."""
    with path.open("rb") as file:
        head = file.read(16)
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if path.suffix == ".onnx" or _begins_onnx(head):
        return "an ONNX graph"
    if path.suffix != SAFETENSORS and _begins_safetensors(head, path.stat().st_size):
        raise CheckpointError(f"{path}: is a safetensors file; give it a name that ends in {SAFETENSORS}")
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for pattern, kind in MEMBERS.items():
        if any(re.search(pattern, name) for name in names):
            return kind
    if path.suffix == SAFETENSORS:
        raise CheckpointError(f"{path}: is a torch file, not safetensors; give it a name that ends in .pt")
    return None


def _begins_onnx(head: bytes) -> bool:
    """Tell whether bytes begin a protobuf with a small number, ONNX's IR version, and then a field of ONNX's model."""
    return len(head) > 3 and head[0] == 0x08 and 0 < head[1] < 32 and head[2] in (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42)


def _begins_safetensors(head: bytes, size: int) -> bool:
    """Tell whether bytes are the length of a header, which fits into the file, and the header's first brace."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") + 8 <= size


# -- safetensors ------------------------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> dict[str, Any]:
    import safetensors  # here, so that `import arraylstm` needs torch alone

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        if "arraylstm" in metadata:
            return {**json.loads(metadata["arraylstm"]), "state_dict": weights}
    except (safetensors.SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {one_line(error)}") from None
    # safetensors.torch.save_model writes a shared tensor once, and in the metadata the names that it also had
    twins = {name: weights[twin] for name, twin in metadata.items() if twin in weights and name not in weights}
    return weights | twins


# -- torch ------------------------------------------------------------------------------------------------------


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins()):
            warnings.simplefilter("ignore")  # torch's hints about files that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_explain_refusal(str(error))}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path}: is a TorchScript program, not weights; {INSTEAD}") from None
        raise CheckpointError(f"{path}: not a readable torch file, or truncated: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a model or a state dict")
    return content


def _explain_refusal(message: str) -> str:
    refused = re.search(r"(?:GLOBAL|global:?)\s+([\w.]+\.\w+)", message)
    if refused:
        return f"needs the code of {refused[1]} to be run when it is read, which is refused; {INSTEAD}"
    return f"not a torch file, or one that runs code when it is read, which is refused; {INSTEAD}"


class Placeholder:
    """Stands for a value beside the weights, and does nothing."""

    def __init__(self, *arguments: object) -> None:
        """Take what the value would be made from."""

    def __setstate__(self, state: object) -> None:
        """Take what the value would be filled with."""


class _Dict:
    """Stands for a dict of another class, which is empty until its entries follow."""

    def __new__(cls, *arguments: object) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


class _List:
    """Stands for a list of another class, which is empty until its entries follow."""

    def __new__(cls, *arguments: object) -> list[Any]:  # type: ignore[misc]
        return []


_NUMPY = [
    f"{folder}.multiarray.{name}" for folder in ("numpy._core", "numpy.core") for name in ("scalar", "_reconstruct")
]
_BUILTIN = [
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in (
        "list",
        "dict",
        "tuple",
        "int",
        "long",
        "float",
        "str",
        "unicode",
        "bool",
        "bytes",
        "frozenset",
        "slice",
        "range",
        "xrange",
        "set",
    )
]
_PATHS = [f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")]
_PATHS += [f"pathlib._local.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")]
_DATES = [f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")]
_LIGHTNING = ["pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing"]
_LIGHTNING += ["lightning_fabric.utilities.data", "lightning.fabric.utilities.data"]
_PLAIN = [
    *_NUMPY,
    *(
        "numpy.dtype",
        "numpy.ndarray",
        "_codecs.encode",
        "uuid.UUID",
        "decimal.Decimal",
        "argparse.Namespace",
        "types.SimpleNamespace",
    ),
    *_BUILTIN,
    *_PATHS,
    *_DATES,
]
"""The names under which files hold plain data that is no weight."""


def _stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what is called in place of each name, as `torch.serialization.safe_globals` takes it."""
    dicts = ["collections.defaultdict", *(f"{module}.AttributeDict" for module in _LIGHTNING)]
    return [
        *((Placeholder, name) for name in _PLAIN),
        *((_Dict, name) for name in dicts),
        (_List, "collections.deque"),
    ]
