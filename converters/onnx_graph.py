"""A small ONNX graph that can still be changed: nodes in order, constants as numpy arrays, one output a node.

Protobuf messages are awkward to rewrite, so the direct writer builds one of these, rewrites it (`onnx_rewrites`), and
turns it into a `ModelProto` once, at the end. Feature maps are NCHW: what ONNX Runtime's fastest kernels start from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import ConverterError

if TYPE_CHECKING:
    import onnx

INPUT = "image"
OUTPUT = "probabilities"
OPSET = 17
"""As old as it can be with every operator used here, so that the runtimes of older boards read the file."""

OPSET_16_BIT = 21
"""The first whose QuantizeLinear knows 16-bit integers."""


@dataclass(slots=True)
class Node:
    """One operator with one output."""

    op: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Graph:
    """Nodes in execution order, and the constants they read.

    `input_shape` is the height, width and channels of the uint8 input [1, height, width, channels].
    """

    input_shape: tuple[int, int, int]
    opset: int = OPSET
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def name(self, wish: str) -> str:
        """Return a name nothing else has, as near to the wish as possible."""
        name, count = wish, 1
        while name in self.taken:
            count += 1
            name = f"{wish}_{count}"
        self.taken.add(name)
        return name

    def constant(self, array: np.ndarray, wish: str) -> str:
        """Store an array and return its name; float64 is rounded to float32 only when the model is written."""
        name = self.name(wish)
        self.constants[name] = array
        return name

    def add(self, op: str, inputs: list[str], wish: str, **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        output = self.name(wish)
        self.nodes.append(Node(op, inputs, output, attributes))
        return output

    def producers(self) -> dict[str, Node]:
        """Map each node's output to the node."""
        return {node.output: node for node in self.nodes}

    def consumers(self) -> dict[str, list[Node]]:
        """Map each tensor to the nodes that read it."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        return readers

    def remove(self, node: Node, instead: str) -> None:
        """Drop a node; whoever read its output reads `instead`."""
        self.nodes.remove(node)
        for reader in self.nodes:
            reader.inputs = [instead if name == node.output else name for name in reader.inputs]


def to_model(graph: Graph, name: str, classes: int, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Return a checked model.

    Args:
        graph: Nodes whose first reads `INPUT` and whose last writes `OUTPUT`.
        name: The graph's name.
        classes: Width of the float32 output [1, classes].
        metadata: Goes into `metadata_props`.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

    def tensor(array: np.ndarray, name: str) -> onnx.TensorProto:
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)

    used = {name for node in graph.nodes for name in node.inputs}
    body = helper.make_graph(
        [helper.make_node(n.op, n.inputs, [n.output], name=n.output, **n.attributes) for n in graph.nodes],
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, (1, *graph.input_shape))],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, (1, classes))],
        [tensor(a, n) for n, a in graph.constants.items() if n in used],
    )
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", graph.opset)],
        ir_version=10 if graph.opset >= OPSET_16_BIT else 8,
        producer_name="edgenet",
    )
    helper.set_model_props(model, dict(metadata))
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as exc:
        raise ConverterError(f"ONNX cannot express this network so: {' '.join(str(exc).split())[:200]}") from exc
    return model


def from_model(model: onnx.ModelProto) -> Graph:
    """Return a model's graph, to be rewritten; what splits a tensor becomes a slice for each part.

    Raises:
        ValueError: another node has several outputs, or the model does not keep the input contract of this package.
    """
    from onnx import helper, numpy_helper

    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    if len(model.graph.input) != 1 or model.graph.input[0].name != INPUT or len(shape) != 4:
        raise ValueError(f"the input is not one tensor {INPUT} [1, height, width, channels]")
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    graph = Graph((shape[1], shape[2], shape[3]), opset, taken={INPUT})
    for tensor in model.graph.initializer:
        graph.constants[tensor.name] = numpy_helper.to_array(tensor)
    graph.taken.update(graph.constants, (name for node in model.graph.node for name in node.output))
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Split":
            _slice(graph, node, attributes["axis"], _shape(model, node.input[0]))
        elif len(node.output) != 1:
            raise ValueError(f"node {node.name} has several outputs")
        else:
            graph.nodes.append(Node(node.op_type, list(node.input), node.output[0], attributes))
    _unshare(graph)
    return graph


def _shape(model: onnx.ModelProto, tensor: str) -> list[int]:
    """Return the shape of what a node answers."""
    from onnx import shape_inference

    known = {info.name: info for info in shape_inference.infer_shapes(model).graph.value_info}
    return [d.dim_value for d in known[tensor].type.tensor_type.shape.dim]


def _slice(graph: Graph, split: onnx.NodeProto, axis: int, shape: list[int]) -> None:
    """Append a Slice for each output of a Split."""
    parts = len(split.output)
    sizes = graph.constants[split.input[1]] if len(split.input) > 1 else np.full(parts, shape[axis] // parts)
    ends = np.cumsum(sizes)
    for output, begin, end in zip(split.output, ends - sizes, ends, strict=True):
        bounds = [graph.constant(np.array([value], np.int64), f"{output}.part") for value in (begin, end, axis)]
        graph.nodes.append(Node("Slice", [split.input[0], *bounds], output))


def _unshare(graph: Graph) -> None:
    """Give each reader of a constant its own, so that rewriting one layer's weights cannot change another's."""
    seen: set[str] = set()
    for node in graph.nodes:
        for index, name in enumerate(node.inputs):
            if name in graph.constants and name in seen:
                node.inputs[index] = graph.constant(graph.constants[name], name)
            seen.add(name)
