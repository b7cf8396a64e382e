"""What several test modules use: small models, quick options, and forms made from functions."""

import torch

from arraylstm import NextItemModel, Vocabulary
from arraylstm_export import Coverage, Options
from arraylstm_export.formats.runner import Runner
from arraylstm_export.graph.step import prepared, step_graph
from arraylstm_export.interface import Interface

SMALL = Coverage(batches=(2, 7), lengths=(1, 17), ragged=((17, 0, 1, 17, 5, 16, 9),), chunkings=1, horizon=50)
"""Few sizes: an error that they find is found by all sizes too, which parity/test_checks.py tries."""
QUICK = Options(coverage=SMALL)
SCRIPT = Options(format=("torchscript",), coverage=SMALL)
"""Without the ONNX graphs, which take most of the time: for what does not depend on the format."""


def make_model(cell):
    """Return a model of two layers with a vocabulary; weights twice as large as usual, so that gates move."""
    torch.manual_seed(11)
    vocabulary = Vocabulary(["a", "b", "ü", 4, "e", "f", "g"])
    model = NextItemModel(cell, 7, 6, k=3, num_layers=2, embedding_size=5, vocabulary=vocabulary).eval()
    with torch.no_grad():
        for weight in model.cells.parameters():
            weight.mul_(2)
    return model


def make_step(model):
    """Return a model's step graph, made as an export makes it."""
    return step_graph(prepared(model.eval()), Interface.of(model))


class Form(Runner):
    """A function as a form; it promises no more than it is said to."""

    def __init__(self, run, exact_rows=False, needs_a_step=False):
        self.run = run
        self.exact_rows = exact_rows
        self.needs_a_step = needs_a_step

    def __call__(self, items, lengths, state):
        return self.run(items, lengths, state)
