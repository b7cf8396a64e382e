"""What an interrupted fit goes on from: a file that is whole or not there, written as time passes."""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from arraylstm.errors import DataError, one_line
from arraylstm.model import ItemModel
from arraylstm.training.options import TrainingOptions

FORMAT = 2


class Snapshots:
    """Writes the state of a fit to a file from time to time, and reads it again.

    Args:
        path: the file.
        seconds: how often it is written, at most; between two batches.
        resume: go on from the file if it is there.
    """

    def __init__(self, path: Path, seconds: float = 30.0, resume: bool = False) -> None:
        self.path = path
        self.resume = resume
        self._unfinished = path.with_name(f".{path.name}.unfinished")
        self.fault: str | None = None
        """Why the file could not be written the last time; no fit ends for that."""
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    def due(self) -> bool:
        """Tell whether it is time to write."""
        return time.monotonic() >= self._next

    def write(self, run: dict[str, Any], state: dict[str, Any]) -> None:
        """Write the state of a run, beside the file, which then takes its name."""
        try:
            with self._unfinished.open("wb") as file:
                torch.save({"format": FORMAT, "run": run, "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            self._unfinished.replace(self.path)
            self.fault = None
        except (OSError, RuntimeError) as error:
            self.fault = one_line(error)
        self._next = time.monotonic() + self._seconds

    def read(self, run: dict[str, Any]) -> dict[str, Any] | None:
        """Return the state to go on from, or None if there is none or none is asked for.

        Raises:
            DataError: the file cannot be read, or is of another run; the message says what differs.
        """
        if not self.resume or not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            theirs, state = dict(content["run"]), dict(content["state"])
        except Exception as error:
            raise DataError(f"{self.path}: is no snapshot of a training that can be read: {one_line(error)}") from None
        differing = [name for name in run if theirs.get(name) != run[name]]
        if content.get("format") != FORMAT or differing:
            what = ", ".join(f"{name} {theirs.get(name)!r}, not {run.get(name)!r}" for name in differing[:3])
            raise DataError(
                f"{self.path}: is of another training, with {what or 'another format'}; resume with the same settings "
                "and data, or remove the file to begin anew"
            )
        return state

    def remove(self) -> None:
        """Remove the file, and what a kill left of another, if they are there."""
        for path in (self.path, self._unfinished):
            path.unlink(missing_ok=True)


def describe_run(
    model: ItemModel,
    train: Sequence[Sequence[int]],
    validation: Sequence[Sequence[int]],
    options: TrainingOptions,
) -> dict[str, Any]:
    """Return what decides a fit's result, beside the weights that it starts from: settings, model and sessions."""
    digest = hashlib.sha256()
    for part in (train, validation):
        for session in part:
            digest.update(repr(list(session)).encode())
        digest.update(b"|")
    model_settings = {f"model {name}": value for name, value in model.config.items()}
    device = model.like().device.type
    return {**asdict(options), **model_settings, "device": device, "sessions": digest.hexdigest()[:16]}


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of torch's generators that a fit draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Go on drawing from a state that `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
