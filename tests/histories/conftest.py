"""Fixtures: the model of a bundle."""

from __future__ import annotations

import pytest

from ..serve.bundles import write_bundle
from .replay import Replay


@pytest.fixture(scope="session")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """The model of a bundle."""
    return Replay(write_bundle(tmp_path_factory.mktemp("histories") / "bundle"))
