"""The Triton model repository, held to Triton's own schema and run as Triton runs it."""

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import text_format

from arraylstm import NextItemModel
from arraylstm_export.errors import ExportError
from arraylstm_export.formats.triton import check_pairing, repository_config, write_repository
from arraylstm_export.interface import Diagnostic, Interface, State

from ..helpers import make_step

schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="Triton's published schema: tritonclient")


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A model of twelve layers, its interface and repository: h_l1 is a prefix of h_l10, which sorts before h_l2."""
    torch.manual_seed(3)
    model = NextItemModel("array", 9, 4, k=2, num_layers=12, embedding_size=3).eval().requires_grad_(False)
    interface, folder = Interface.of(model), tmp_path_factory.mktemp("models")
    write_repository(make_step(model), interface, folder)
    return model, interface, folder / "arraylstm"


def parsed(text):
    return text_format.Parse(text, schema.ModelConfig())


def test_the_configuration_says_what_the_interface_says(deep):
    """Parsed by Triton's published schema: items in, logits out, every state with its shape and zeros to start from."""
    _, interface, folder = deep
    config = parsed((folder / "config.pbtxt").read_text())
    assert config.name == folder.name
    assert config.backend == "onnxruntime"
    assert config.max_batch_size > 0
    (items,), (logits,) = config.input, config.output
    assert (items.name, items.data_type, items.dims) == ("items", schema.TYPE_INT64, [1])
    assert items.HasField("reshape")
    assert items.reshape.shape == []
    assert (logits.name, logits.data_type, logits.dims) == ("logits", schema.TYPE_FP32, [9])
    assert config.sequence_batching.WhichOneof("strategy_choice") == "oldest"
    assert len(config.sequence_batching.state) == 24
    for told, state in zip(config.sequence_batching.state, interface.states, strict=True):
        assert (told.input_name, told.output_name) == (state.input.name, state.output.name)
        (initial,) = told.initial_state
        assert tuple(told.dims) == tuple(initial.dims) == state.shape
        assert told.data_type == initial.data_type == schema.TYPE_FP32
        assert initial.zero_data


def test_diagnostics_are_plain_outputs():
    """Diagnostics go to the client with the logits, one number per row as [1]; states do not."""
    interface = Interface(5, (State("h", (3,)),), (Diagnostic("q_z", (2, 2)), Diagnostic("z", ())))
    outputs = parsed(repository_config(interface)).output
    assert [(out.name, tuple(out.dims)) for out in outputs] == [("logits", (5,)), ("q_z", (2, 2)), ("z", (1,))]
    assert [out.HasField("reshape") for out in outputs] == [False, False, True]


class Triton:
    """The server's implicit state: the n-th state output by name becomes the n-th state input by name."""

    def __init__(self, folder):
        self.session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
        self.states = parsed((folder / "config.pbtxt").read_text()).sequence_batching.state
        self.kept = {}

    def infer(self, requests):
        """Answer one item of each of several sequences in a batch; an unknown sequence starts."""
        zeros = {s.input_name: np.zeros(list(s.initial_state[0].dims), np.float32) for s in self.states}
        found = [self.kept.get(sequence, zeros) for sequence in requests]
        feed = {name: np.stack([state[name] for state in found]) for name in zeros}
        outputs = sorted(state.output_name for state in self.states)
        items = np.array(list(requests.values())).reshape(len(requests))
        logits, *after = self.session.run(["logits", *outputs], {"items": items, **feed})
        for row, sequence in enumerate(requests):
            states = [tensor[row] for tensor in after]
            self.kept[sequence] = dict(zip(sorted(zeros), states, strict=True))
        return logits


def test_a_repository_run_as_triton_runs_it_is_the_model(deep):
    """Interleaved sequences, batched differently at each step, score as the model scores each alone."""
    model, _, folder = deep
    server, rng = Triton(folder), np.random.default_rng(0)
    histories = {sequence: [] for sequence in "abc"}
    for step in range(6):
        present = [sequence for sequence in histories if step == 0 or rng.random() < 0.7] or ["a"]
        requests = {sequence: int(rng.integers(9)) for sequence in present}
        logits = server.infer(requests)
        for row, (sequence, item) in enumerate(requests.items()):
            histories[sequence].append(item)
            expected = model(torch.tensor([histories[sequence]]))[0][0, -1]
            np.testing.assert_allclose(logits[row], expected, atol=1e-6)


def test_names_that_triton_would_confuse_are_refused():
    """The names of Triton's issue 8586 sort differently as inputs and as outputs; with a prefix they sort alike."""
    names = ["cache", "cache_len"]
    with pytest.raises(ExportError, match="would feed 'cache_len_next' to 'cache'"):
        check_pairing([(name, f"{name}_next") for name in names])
    check_pairing([(name, f"next_{name}") for name in names])


def test_a_state_without_dimensions_is_refused_in_words():
    """Triton's configuration cannot describe a state of one number per row."""
    with pytest.raises(ExportError, match="state 'count_l0' has no dimension besides the batch"):
        repository_config(Interface(5, (State("count_l0", ()),)))
