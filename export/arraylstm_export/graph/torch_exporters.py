"""torch's exporters: how each of them is called, and what is asked of the graph that torch.onnx.export returns."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from onnx import ModelProto, helper
from torch import Tensor, nn

from arraylstm.errors import one_line
from arraylstm_export.errors import ExportError
from arraylstm_export.graph.edit import checked_model, strip
from arraylstm_export.graph.names import Weights, give_names
from arraylstm_export.graph.opset import IR_VERSION, OPSET
from arraylstm_export.interface import Signature


@dataclass(frozen=True)
class Traceable:
    """A module in eval mode, and what torch's exporters need to know about its arguments."""

    module: nn.Module
    example: tuple[Tensor, ...]
    dynamic: tuple[Any, ...]
    """The dynamic dimensions of each argument."""


def export_graph(name: str, traceable: Traceable, signature: Signature) -> ModelProto:
    """Export a module with torch.onnx.export, and check that the graph has the promised signature.

    Raises:
        ExportError: torch cannot export the module, or the graph's inputs and outputs are not the promised ones (a
            dimension was frozen, say).
    """
    with quiet_exporter():
        exported = torch.onnx.export(
            traceable.module,
            traceable.example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in signature.inputs],
            output_names=[tensor.name for tensor in signature.outputs],
            dynamic_shapes=traceable.dynamic,
            external_data=False,
            verbose=False,
            optimize=False,
        )
        assert exported is not None  # which it never is with dynamo=True
        weights = Weights(traceable.module, exported.model.graph)
        exported.optimize()
        for value, tensor in zip(exported.model.graph.outputs, signature.outputs, strict=True):
            value.name = tensor.name  # an output loses its name when the node before it is optimised away
    graph = exported.model_proto.graph
    graph.name = name
    strip(graph)
    give_names(graph, weights)
    return checked_model(graph, signature, [helper.make_opsetid("", OPSET)], IR_VERSION)


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence torch's exporters, which log what the user need not know, and turn any failure into an ExportError.

    Raises:
        ExportError: an exporter failed.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # every part of torch's exporters raises its own
            raise ExportError(f"torch cannot export the model: {one_line(_root(error))}") from error
        finally:
            logger.setLevel(level)


def _root(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root(error.__cause__)
