"""The graphs of one model, each made once however many formats want it."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from onnx import ModelProto

from arraylstm import ItemModel
from arraylstm_export.errors import ExportError
from arraylstm_export.graph.lstm import is_plain_lstm, lstm_sequence_graph
from arraylstm_export.graph.opset import OPSET, converted
from arraylstm_export.graph.precision import PRECISIONS
from arraylstm_export.graph.sequence import sequence_graph
from arraylstm_export.graph.step import prepared
from arraylstm_export.interface import METADATA, Interface, Signature

LARGEST = 2**31 - 2**24
"""Largest size of the weights in bytes: a protobuf file holds less than 2 GB, and a graph is more than its weights."""


@dataclass(frozen=True)
class GraphBuilder:
    """Makes the graphs of a model when they are asked for, and keeps them."""

    model: ItemModel
    """On the CPU, in eval mode and float32, its weights in the documented layout."""
    interface: Interface
    precision: str
    opset: int
    ir_version: int
    description: dict[str, Any]
    """What the manifest and the metadata of every graph say about the model."""

    @cached_property
    def prepared(self) -> ItemModel:
        """A copy of the model with its weights laid out for the fastest step."""
        return prepared(self.model)

    @cached_property
    def step(self) -> ModelProto:
        """The step graph."""
        return self._finished(self._step, self.interface.step)

    @cached_property
    def sequence(self) -> ModelProto:
        """The sequence graph: on ONNX's LSTM operator where the model is a plain LSTM, else a Scan over the step."""
        if self.precision == "fp32" and self.opset >= OPSET and is_plain_lstm(self.model):
            graph = lstm_sequence_graph(self.model, self.interface)
        else:
            graph = sequence_graph(self._step, self.interface)
        return self._finished(graph, self.interface.sequence)

    @cached_property
    def _step(self) -> ModelProto:
        size = sum(4 * weight.numel() for weight in self.model.state_dict().values())
        if size > LARGEST:
            raise ExportError(
                f"the model has weights of {size:,} bytes; an ONNX file holds at most {LARGEST:,}, torchscript more"
            )
        return PRECISIONS[self.precision].step(self.prepared, self.interface)

    def _finished(self, graph: ModelProto, signature: Signature) -> ModelProto:
        """Return the graph in the wanted operator set, with the description and its signature in its metadata."""
        model = converted(graph, self.opset, self.ir_version)
        for name, value in {**self.description, **asdict(signature)}.items():
            text = value if isinstance(value, str) else json.dumps(value)
            model.metadata_props.add(key=METADATA + name, value=text)
        return model
