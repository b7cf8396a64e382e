"""Meaningful names for the weights, constants and values that torch's exporter only numbers.

cells.1.h2h.weight_transposed       folded from one parameter, which is named as in the state dict
cells.1.i2h.bias_add_h2h.bias       folded from two parameters
constant_int64_-1_128_list          a constant, named after its content
cells.1/Mul_2                       the third product in the module whose weights were used last
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
from onnx import GraphProto, NodeProto, numpy_helper
from torch import nn

from arraylstm_export.graph.edit import all_nodes, replace

_LONGEST_LIST = 8
"""Elements that a constant's name lists; the name of a larger one has a checksum."""
_LONGEST_NAME = 100
_CONTAINERS = (nn.ModuleDict, nn.ModuleList, nn.Sequential)


class Weights:
    """The names of a graph's weights, and the modules that own them.

    Make it before constants are folded: the graph does not say afterwards what was folded into a weight.

    Args:
        module: what was exported; names below its attribute `model` lose that first word.
        graph: the graph in onnx's intermediate representation, as torch's exporter holds it.
    """

    def __init__(self, module: nn.Module, graph: Any) -> None:
        tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
        self.names = {name: _short(name) for name, _ in tensors}
        self.owners = {name: _short(_owner(module, name)) for name in self.names}
        constants = set(graph.initializers) - set(self.names)
        for node in graph:
            inputs = [value.name for value in node.inputs if value is not None]
            outputs = [value.name for value in node.outputs]
            weights = [name for name in inputs if name in self.names]
            if not constants.union(weights).issuperset(inputs):
                continue
            if not weights or node.op_type in ("Shape", "Size"):
                constants.update(outputs)
                continue
            name = _combined(node.op_type, [self.names[weight] for weight in weights])
            self.names.update(dict.fromkeys(outputs, name))
            self.owners.update(dict.fromkeys(outputs, self.owners[weights[0]]))


def give_names(graph: GraphProto, weights: Weights) -> None:
    """Rename everything in a graph except its inputs and outputs; equal constants become one."""
    fixed = [value.name for value in (*graph.input, *graph.output)]
    names, taken = dict(zip(fixed, fixed, strict=True)), Counter(fixed)
    for tensor in graph.initializer:
        if tensor.name in weights.names:
            names[tensor.name] = _unique(weights.names[tensor.name], taken)
        else:
            names[tensor.name] = constant_name(numpy_helper.to_array(tensor))
    owners = weights.owners | {value.name: value.name for value in graph.input}
    for node in graph.node:
        owner = _last_owner(node, weights, owners)
        label = f"{owner}/{node.op_type}".removeprefix("/")
        unnamed = [name for name in node.output if name and name not in names]
        node.name = _unique(label, taken) if unnamed else node.output[0]
        given = [node.name] if len(node.output) == 1 else [f"{node.name}/{index}" for index in range(len(node.output))]
        names |= {old: new for old, new in zip(node.output, given, strict=True) if old in unnamed}
        owners |= dict.fromkeys(node.output, owner)
    _rename(graph, names)
    replace(graph.initializer, {tensor.name: tensor for tensor in graph.initializer}.values())


def constant_name(value: npt.NDArray[Any]) -> str:
    """Return a name made from a constant's content, so that equal constants have equal names."""
    name = f"constant_{value.dtype.name}"
    if value.size > _LONGEST_LIST:
        return f"{name}_{'x'.join(map(str, value.shape))}_{hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
    if value.ndim > 1:
        name = f"{name}_{'x'.join(map(str, value.shape))}"
    return "_".join([name, *map(str, value.reshape(-1)), *(["list"] if value.ndim else [])])


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    for node in all_nodes(graph):
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)


def _last_owner(node: NodeProto, weights: Weights, owners: dict[str, str]) -> str:
    """Return the owner of the weights that a node takes, else the owner of its input that was computed last."""
    taken = [name for name in node.input if name in weights.owners]
    fed = [name for name, owner in owners.items() if owner and name in node.input]
    return owners[(taken or fed)[-1]] if taken or fed else ""


def _owner(module: nn.Module, name: str) -> str:
    """Return the path of the outermost module that a parameter is in, not counting containers and the whole model."""
    path: list[str] = []
    for part in name.split(".")[:-1]:
        path.append(part)
        module = module.get_submodule(part)
        if not isinstance(module, _CONTAINERS) and path != ["model"]:
            break
    return ".".join(path)


def _short(name: str) -> str:
    return "" if name == "model" else name.removeprefix("model.")


def _combined(kind: str, names: Iterable[str]) -> str:
    """Return a name for what a node computes from weights; later names lose the modules they share with the first."""
    operation = "transposed" if kind == "Transpose" else kind.lower()
    first, *others = dict.fromkeys(names)
    if kind == "Identity":
        return first
    name = f"_{operation}_".join([first, *(_apart(first, other) for other in others)])
    name = name if others else f"{first}_{operation}"
    return name if len(name) <= _LONGEST_NAME else f"{first[: _LONGEST_NAME // 2]}_{operation}"


def _apart(name: str, other: str) -> str:
    """Return the other name without the modules that it shares with the first."""
    parts, others = name.split("."), other.split(".")
    while len(others) > 1 and parts and parts[0] == others[0]:
        parts, others = parts[1:], others[1:]
    return ".".join(others)


def _unique(name: str, taken: Counter[str]) -> str:
    """Return the name, with a number after it if it is taken already."""
    taken[name] += 1
    return name if taken[name] == 1 else _unique(f"{name}_{taken[name] - 1}", taken)
