"""A small model of every cell and its bundle, exported once."""

import pytest

import arraylstm
import arraylstm_export
from arraylstm import CELLS

from .helpers import QUICK, make_model


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
