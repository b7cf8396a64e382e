"""A small model of every cell and its bundle, exported once for all processes that run the suite together."""

import os
import pickle
from functools import cache

import pytest
from filelock import FileLock  # torch needs it too

import arraylstm
import arraylstm_export
from arraylstm import CELLS

from .helpers import QUICK, make_model


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Return, for a cell's name, its model and the bundle exported from it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundles"
    folder.mkdir(exist_ok=True)

    def bundle(cell):
        """Export the cell's model, or take what another process of this run has exported."""
        model, target, report = make_model(cell), folder / cell, folder / f"{cell}.report"
        with FileLock(folder / f"{cell}.lock"):
            if not report.exists():
                report.write_bytes(pickle.dumps(arraylstm_export.export(model, target, QUICK)))
        return model, target, pickle.loads(report.read_bytes())

    return cache(bundle)


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
