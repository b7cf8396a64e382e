"""What is run, part by part; every field is a flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Peer = Literal["torch eager", "torch.compile", "torch CUDA graph", "onnxruntime"]
Variant = Literal["compiled step", "CUDA graph", "CUDA graph of compiled step", "compiled whole"]


@dataclass(frozen=True, kw_only=True)
class CardSizes:
    """What shows what the card can do."""

    copy_megabytes: int = 1024
    """Size of what is copied, larger than any cache."""
    product: int = 8192
    """Rows and columns of the matrices that are multiplied."""


@dataclass(frozen=True, kw_only=True)
class StepSizes:
    """Single steps of an array model."""

    batch: tuple[int, ...] = (1, 8, 64, 512, 4096)
    """B, sessions stepped at once."""
    hidden: tuple[int, ...] = (128, 512, 2048)
    """H, hidden units."""
    lanes: tuple[int, ...] = (1, 2, 4)
    """k, memory cells a unit."""
    num_items: int = 1000
    """V, items to choose from."""
    embedding_size: int = 64
    """E, width of the item embedding."""
    peers: tuple[Peer, ...] = ("torch eager", "torch.compile", "torch CUDA graph", "onnxruntime")
    """What is measured beside the server's engine."""
    bundles: Path | None = None
    """Folder to keep the exported models in, for another run; exporting the largest takes a minute."""


@dataclass(frozen=True, kw_only=True)
class BulkSizes:
    """Bulk requests to a server of its own; V and E are those of the steps."""

    bulk: tuple[int, ...] = (1000,)
    """Events of a request."""
    bulk_batch: int = 1024
    """Most sessions that the server steps at once, and B of the engine beside it."""
    bulk_hidden: int = 512
    """H of the model that is served."""
    bulk_lanes: int = 4
    """k of the model that is served."""
    connections: int = 4
    """Requests under way at once."""
    seconds: float = 3.0
    """Length of each run."""
    server_cores: str = "0-3"
    """Cores of the server, as taskset takes them."""


@dataclass(frozen=True, kw_only=True)
class TrainingSizes:
    """Forward and backward passes of one layer."""

    train_batch: int = 64
    """B, sequences at once."""
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
    """Ways to run ours beside plainly; to compile the whole unrolls its steps, which takes minutes."""
