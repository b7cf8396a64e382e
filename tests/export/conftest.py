"""A small model of every cell and its bundle, exported once."""

import pytest
import torch

import arraylstm
import arraylstm_export
from arraylstm import CELLS, NextItemModel, Vocabulary
from arraylstm_export import Coverage, Options

SMALL = Coverage(batches=(2, 7), lengths=(1, 17), ragged=((17, 0, 1, 17, 5, 16, 9),), chunkings=1, horizon=50)
"""Few sizes: what is caught in a net of larger meshes is caught in the whole one, which test_parity.py has."""
QUICK = Options(coverage=SMALL)


def make_model(cell):
    """A model of two layers with a vocabulary; weights twice as large as usual, so that gates move."""
    torch.manual_seed(11)
    vocabulary = Vocabulary(["a", "b", "ü", 4, "e", "f", "g"])
    model = NextItemModel(cell, 7, 6, k=3, num_layers=2, embedding_size=5, vocabulary=vocabulary).eval()
    with torch.no_grad():
        for weight in model.cells.parameters():
            weight.mul_(2)
    return model


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Return, for a cell's name, its model and the bundle exported from it."""
    made = {}

    def bundle(cell):
        if cell not in made:
            model = make_model(cell)
            folder = tmp_path_factory.mktemp("bundles") / cell
            made[cell] = model, folder, arraylstm_export.export(model, folder, QUICK)
        return made[cell]

    return bundle


@pytest.fixture(params=CELLS)
def exported(request, bundles):
    """Every cell's model, bundle folder and parity report."""
    return bundles(request.param)


@pytest.fixture
def array_bundle(bundles):
    """The array cell's model, bundle folder and parity report; not to be changed."""
    return bundles("array")


@pytest.fixture
def model_file(tmp_path):
    """A saved array model."""
    arraylstm.save(make_model("array"), tmp_path / "model.pt")
    return tmp_path / "model.pt"
