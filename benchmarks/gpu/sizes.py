"""The sizes of each part; every field is a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Peer = Literal["engine, arrays", "torch eager", "torch.compile", "torch CUDA graph", "onnxruntime"]
Variant = Literal["compiled step", "CUDA graph", "CUDA graph of compiled step", "compiled whole"]


@dataclass(frozen=True, kw_only=True)
class CardSizes:
    """Sizes for measuring the card."""

    copy_megabytes: int = 1024
    """Bytes to copy, more than any cache holds."""
    product: int = 8192
    """Rows and columns of the matrices that are multiplied."""


@dataclass(frozen=True, kw_only=True)
class StepSizes:
    """Single steps of an array model."""

    batch: tuple[int, ...] = (1, 8, 64, 512, 4096)
    """B, sessions stepped together."""
    hidden: tuple[int, ...] = (128, 512, 2048)
    """H, hidden units."""
    lanes: tuple[int, ...] = (1, 2, 4)
    """k, memory cells a unit."""
    num_items: int = 1000
    """V, items to choose from."""
    embedding_size: int = 64
    """E, width of the item embedding."""
    peers: tuple[Peer, ...] = ("engine, arrays", "torch eager", "torch.compile", "torch CUDA graph", "onnxruntime")
    """Other ways to take a step that are measured too; `engine, arrays` is the engine without lists for answers."""
    bundles: Path | None = None
    """Folder that keeps the exported models for the next run; exporting the largest takes a minute."""


@dataclass(frozen=True, kw_only=True)
class BulkSizes:
    """Bulk requests to a server in its own process; V and E are those of the steps."""

    bulk: tuple[int, ...] = (1000,)
    """Events in a request."""
    bulk_batch: int = 1024
    """Most sessions that the server steps at once, and B of the engine beside it."""
    bulk_hidden: int = 512
    """H of the model that is served."""
    bulk_lanes: int = 4
    """k of the model that is served."""
    connections: int = 4
    """Requests in flight at once."""
    seconds: float = 3.0
    """Length of each run."""
    server_cores: str = "0-3"
    """Cores of the server, as taskset takes them."""


@dataclass(frozen=True, kw_only=True)
class TrainingSizes:
    """Forward and backward passes of one layer."""

    train_batch: int = 64
    """B, sequences in a batch."""
    train_steps: int = 100
    """S, length of a sequence."""
    train_input: int = 512
    """I, width of the input."""
    train_hidden: int = 512
    """H, hidden units."""
    train_lanes: int = 4
    """k, memory cells a unit, for the cells that have several."""
    cells: tuple[str, ...] = ()
    """Cells to measure [default: those that array-lstm has]."""
    variants: tuple[Variant, ...] = ("compiled step", "CUDA graph", "CUDA graph of compiled step")
    """Ways to run our cells besides eager; compiling the whole unrolls its steps, which takes minutes."""
