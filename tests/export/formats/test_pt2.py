"""`model.pt2`, the exported program of torch.export."""

import itertools
import zipfile

import numpy as np
import pytest
import torch

from arraylstm_export.formats.eager import Whole
from arraylstm_export.formats.pt2 import Pt2Step, write_pt2
from arraylstm_export.interface import Interface


@pytest.fixture
def program(bundles, tmp_path):
    """The markov model, which has diagnostics, its interface and its program."""
    model = bundles("markov")[0]
    interface = Interface.of(model, with_diagnostics=True)
    write_pt2(model, interface, tmp_path / "model.pt2")
    return model, interface, tmp_path / "model.pt2"


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_program_is_the_model_at_any_batch(program, batch):
    """Ragged sequences from random states give the model's scores, diagnostics and states."""
    model, interface, path = program
    rng = np.random.default_rng(batch)
    items, lengths = rng.integers(0, model.num_items, (batch, 9)), rng.integers(0, 10, batch)
    lengths[0] = 9
    state = [rng.random((batch, *state.shape), np.float32) for state in interface.states]
    actual = Pt2Step(path, interface)(items, lengths, state)
    expected = Whole(model, interface)(items, lengths, state)
    for found, wanted in zip(itertools.chain(*actual), itertools.chain(*expected), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_program_is_written_alike_each_time_and_tells_nothing_of_the_machine(program, tmp_path):
    """Two writings in folders of different names are byte for byte the same, and no record names a source file."""
    model, interface, path = program
    (tmp_path / "elsewhere").mkdir()
    write_pt2(model, interface, tmp_path / "elsewhere" / "model.pt2")
    assert path.read_bytes() == (tmp_path / "elsewhere" / "model.pt2").read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if b".py" in archive.read(name)]


def test_the_batch_is_not_frozen(program):
    """The program takes a batch it was not exported with, and refuses states of another batch than the items'."""
    _, interface, path = program
    module = torch.export.load(path).module()
    states = [torch.zeros(5, *state.shape) for state in interface.states]
    assert module(torch.zeros(5, dtype=torch.int64), *states)[0].shape == (5, interface.num_items)
    with pytest.raises(AssertionError, match="Guard failed"):
        module(torch.zeros(4, dtype=torch.int64), *states)
