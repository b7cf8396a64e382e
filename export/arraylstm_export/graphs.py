"""The step graph: what `torch.onnx.export` makes of `ItemModel.step`. No cell is stated here."""

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator

import onnx
import torch
from onnx import GraphProto, ModelProto, OperatorSetIdProto, TensorProto, helper

from arraylstm import ItemModel
from arraylstm.errors import one_line
from arraylstm_export.dataflow import dims
from arraylstm_export.errors import ExportError
from arraylstm_export.naming import Weights, give_names
from arraylstm_export.signature import Interface, Signature, Tensor
from arraylstm_export.step import Traceable, traceable_step
from arraylstm_export.tabulate import tabulated

OPSET = 18
IR_VERSION = 8


def step_graph(model: ItemModel, interface: Interface) -> ModelProto:
    """Export one step of a model in eval mode: items (B), state -> logits (B, V), next state, diagnostics.

    Raises:
        ExportError: the exported graph's inputs and outputs are not the promised ones (a dimension was frozen, say).
    """
    step = export_graph("step", traceable_step(model, interface), interface.step)
    return tabulated(step, interface.num_items)


def export_graph(name: str, traceable: Traceable, signature: Signature) -> ModelProto:
    """Export a module through torch's exporter, and hold the graph to its signature.

    Raises:
        ExportError: the exported graph's inputs and outputs are not the promised ones (a dimension was frozen, say).
    """
    with through_torch():
        program = torch.onnx.export(
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
        assert program is not None  # what torch.onnx.export returns with dynamo=True
        weights = Weights(traceable.module, program.model.graph)
        program.optimize()
        for value, tensor in zip(program.model.graph.outputs, signature.outputs, strict=True):
            value.name = tensor.name  # which it lost where the last node before an output was optimised away
    graph = program.model_proto.graph
    graph.name = name
    _strip(graph)
    give_names(graph, weights)
    model = finish(graph, [helper.make_opsetid("", OPSET)], IR_VERSION)
    check_signature(model, signature)
    return model


def value_of(tensor: Tensor) -> onnx.ValueInfoProto:
    """Return the tensor as a graph describes its inputs and outputs."""
    elements = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}
    return helper.make_tensor_value_info(tensor.name, elements[tensor.dtype], tensor.shape)


def _strip(graph: GraphProto) -> None:
    """Drop what the exporter wrote about the machine and source it ran on."""
    for part in [graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def finish(graph: GraphProto, opsets: Iterable[OperatorSetIdProto], ir_version: int) -> ModelProto:
    """Return the graph as a model that ONNX's checker accepts."""
    model = helper.make_model(graph, opset_imports=list(opsets), ir_version=ir_version, producer_name="arraylstm")
    onnx.checker.check_model(model, full_check=True)
    return model


def check_signature(model: ModelProto, signature: Signature) -> None:
    """Raise ExportError unless the graph's inputs and outputs are the promised ones."""
    for promised, actual in (
        *zip(signature.inputs, model.graph.input, strict=True),
        *zip(signature.outputs, model.graph.output, strict=True),
    ):
        if (actual.name, tuple(dims(actual))) != (promised.name, promised.shape):
            raise ExportError(
                f"{model.graph.name} graph: {promised.name} must be {list(promised.shape)}, "
                f"but {actual.name} {dims(actual)} was exported"
            )


def _root(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root(error.__cause__)


@contextlib.contextmanager
def through_torch() -> Iterator[None]:
    """Silence torch's exporters, which log about what does not concern the user, and name what they cannot export.

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
        except Exception as error:  # every part of torch's exporters has its own
            raise ExportError(f"torch cannot export the model: {one_line(_root(error))}") from error
        finally:
            logger.setLevel(level)
