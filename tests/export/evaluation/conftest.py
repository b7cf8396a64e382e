"""Small models with and without an unknown item, their bundles, and sessions with items that they do not know."""

import json
from dataclasses import asdict
from functools import cache

import onnx
import pytest
import torch

from arraylstm import NextItemModel, Vocabulary
from arraylstm.eventlog import generate_sessions
from arraylstm_export import Options
from arraylstm_export.bundle import write
from arraylstm_export.bundle.manifest import write_manifest
from arraylstm_export.formats.onnx import STEP

SESSIONS = generate_sessions(16, seed=1)
FREQUENT = Vocabulary.from_sessions(generate_sessions(60), min_count=60)
VOCABULARIES = {
    "known": Vocabulary.from_sessions(SESSIONS),
    "unknown": FREQUENT,
    "lacking": Vocabulary([label for label in FREQUENT.labels if label != FREQUENT.unknown]),
}


def make(vocabulary):
    """A model of these labels whose scores differ widely; the unknown item is often the most likely."""
    torch.manual_seed(3)
    model = NextItemModel("lstm", len(vocabulary), 12, embedding_size=8, vocabulary=vocabulary).eval()
    with torch.no_grad():
        model.linear.weight.mul_(12)
        if vocabulary.unknown is not None:
            model.linear.bias[vocabulary.unknown_id] += 2
    return model


def write_step_bundle(model, folder):
    """Write what a server needs of a bundle; comparing it with the model would take most of an export's time."""
    folder.mkdir()
    graphs = write._graph_builder(model, Options())
    onnx.save(graphs.step, folder / STEP)
    (folder / "vocabulary.json").write_text(json.dumps(model.vocabulary.fields()))
    content = {
        **graphs.description,
        "formats": ["onnx"],
        "opset": graphs.opset,
        "ir_version": graphs.ir_version,
        "graphs": {STEP: asdict(graphs.interface.step)},
        "tolerance": {"allowed": 1e-5, "reached": 0.0},
        "versions": {},
    }
    write_manifest(folder, content)
    return folder


@pytest.fixture(scope="session")
def model_and_bundle(tmp_path_factory):
    """Return, by name, a model and its bundle, not to be changed.

    `known` knows all items, `unknown` takes the rare ones for its unknown item, `lacking` has no such item.
    """

    @cache
    def made(name):
        model = make(VOCABULARIES[name])
        return model, write_step_bundle(model, tmp_path_factory.mktemp("evaluated") / name)

    return made
