"""How fast `fit` learns beside a plain loop around nn.LSTM, on the same sessions and with as many parameters.

    python benchmarks/fitting.py EVENTS [--rounds 3]

prints the CPU time of an epoch of each, and the ratio of the medians, from rounds that take turns in one run.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Annotated

import torch
from cyclopts import App, Parameter
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from arraylstm import NextItemModel, Vocabulary
from arraylstm.data import DataOptions, read_sessions
from arraylstm.training import TrainingOptions, fit

app = App(name="fitting", result_action="return_value")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The models, and the sessions that they learn from."""

    hidden_size: int = 128
    embedding_size: int = 64
    batch_size: int = 64
    sessions: int = 2000
    """Sessions of the file that are used."""
    rounds: int = 3


@app.default
def main(
    data: Path,
    /,
    *,
    read: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    sizes: Annotated[Sizes, Parameter(name="*")] = Sizes(),
) -> int:
    """Time an epoch of each way to learn from an event file."""
    torch.set_num_threads(1)
    labels = [session for session in read_sessions(data, read)[0] if len(session) > 1][: sizes.sessions]
    vocabulary = Vocabulary.from_sessions(labels)
    sessions = [vocabulary.encode(session)[:129] for session in labels]
    ways = {"plain loop": plain, "fit, lstm": ours("lstm", 1), "fit, array k=2": ours("array", 2)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(sizes.rounds + 1):
        for name, way in ways.items():
            start = process_time()
            way(sessions, len(vocabulary), sizes)
            seconds[name].append(process_time() - start)
    items = sum(map(len, sessions))
    base = median(seconds["plain loop"][1:])
    for name, times in seconds.items():  # the first round warms up
        took = median(times[1:])
        print(f"{name:16} {took:6.2f} s CPU  {items / took:9,.0f} items/s  {took / base:5.2f} of the plain loop's time")
    return 0


def ours(cell: str, k: int):
    """Return a function that fits a model of a cell for one epoch."""

    def run(sessions: list[list[int]], num_items: int, sizes: Sizes) -> None:
        torch.manual_seed(0)
        model = NextItemModel(cell, num_items, sizes.hidden_size // k, k, embedding_size=sizes.embedding_size)
        fit(model, sessions, sessions[:1], TrainingOptions(epochs=1, batch_size=sizes.batch_size, loss="full"))

    return run


def plain(sessions: list[list[int]], num_items: int, sizes: Sizes) -> None:
    """Learn for one epoch as a tutorial does: batches of similar length, padded, full softmax, Adam."""
    torch.manual_seed(0)
    embedding, linear = nn.Embedding(num_items, sizes.embedding_size), nn.Linear(sizes.hidden_size, num_items)
    lstm = nn.LSTM(sizes.embedding_size, sizes.hidden_size, batch_first=True)
    weights = [*embedding.parameters(), *lstm.parameters(), *linear.parameters()]
    optimiser = torch.optim.Adam(weights, lr=0.003)
    ordered = sorted(sessions, key=len)
    for start in range(0, len(ordered), sizes.batch_size):
        rows = [torch.tensor(session) for session in ordered[start : start + sizes.batch_size]]
        batch = pad_sequence(rows, batch_first=True, padding_value=-1)
        logits = linear(lstm(embedding(batch[:, :-1].clamp(min=0)))[0])
        optimiser.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=-1).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()


if __name__ == "__main__":
    app()
