"""What the programs in C++ check for themselves, where other languages would raise an error."""

import numpy as np
import pytest

from .programs import assert_bad_input


@pytest.fixture(scope="session", params=["libtorch", "openvino"])
def replay(request):
    """The replay programs in C++."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("lengths", np.array([4, 0, 8]), "lengths must lie between 0 and 7"),
        ("lengths", np.array([4]), "lengths is (1), but has to be (3)"),
        ("state_h_l0", np.ones((1, 6), np.float32), "state_h_l0 is (1, 6), but has to be (3, 6)"),
        ("items", np.array([1, 2, 3]), "items has 1 axes, but has to have 2"),
        ("logits", np.ones((3, 7, 1), np.float64), "'descr': '<f8'"),
    ],
)
def test_a_vector_that_does_not_fit(replay, copied_bundle, name, array, words):
    """A vector whose arrays contradict each other is refused rather than read past its end."""
    path = copied_bundle / "vectors" / "sequence" / "test_data_set_1.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {name: array})
    assert_bad_input(replay(copied_bundle), str(path), words)
