"""A float graph into QDQ form: uint8 activations, int8 weights a channel, shaped so that ONNX Runtime runs it on bytes.

What stays float, and why:

- the first convolution with its activation: from three channels ONNX Runtime's int8 kernel is half as fast as its
  float one, and the first layer's activations are those that lose most in 8 bits;
- the last dense layer's output: its 8-bit sums go straight into a float softmax, so that logits never saturate.

What would cost most does not stay float. ONNX Runtime has no int8 HardSigmoid or HardSwish, and would cut the network
at each:

- HardSigmoid(x) = clip(a x + b, 0, 1) is the saturation of the bytes themselves: x is stored with a scale of 1 / 255a,
  such that byte 0 is where the sigmoid leaves 0 and byte 255 where it reaches 1. The same bytes read with scale 1 / 255
  *are* the sigmoid.
- HardSwish(x) = x * clip(x + 3, 0, 6) / 6: x is stored with scale 3 / z and zero point z, so byte 0 is -3, below which
  the answer is 0 anyway. The same bytes, clipped at 2 z and read with scale 1 / 2z, are the gate, exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.calibration import SMALLEST_SPAN
from converters.onnx_channels import UNARY
from converters.onnx_graph import INPUT, OPSET_16_BIT, OUTPUT, Graph, Node

WEIGHTED = frozenset(("Conv", "Gemm"))
INTEGER = frozenset({"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "Sigmoid", "LeakyRelu"})
STEM = UNARY | {"Conv"}
GATES = frozenset(("HardSigmoid", "HardSwish"))
PASSING = frozenset(("Reshape", "Flatten", "Transpose", "MaxPool"))
"""They move bytes without changing them: the output keeps the input's scale and zero point."""

SMALLEST_WEIGHT_SCALE = 1e-4
"""Of the layer's largest: a weight scale near zero makes the int32 bias overflow."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How the integers of one tensor stand for real numbers: real = (integer - zero) * scale."""

    scale: float
    zero: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes integer.

    Attributes:
        nodes: outputs of the nodes that compute on integers.
        stored: the tensors that are stored as integers.
        absorbed: output of a convolution -> output of the Relu or Clip behind it, which saturation replaces.
        gates: output of a convolution -> the HardSigmoid or HardSwish that alone reads it.
    """

    nodes: frozenset[str]
    stored: frozenset[str]
    absorbed: Mapping[str, str]
    gates: Mapping[str, Node]

    @property
    def observed(self) -> frozenset[str]:
        """The tensors whose range must be known."""
        return self.stored | frozenset(self.gates)


NOTHING = Plan(frozenset(), frozenset(), {}, {})


def plan(graph: Graph, wide: bool) -> Plan:
    """Decide what becomes integer; `wide`: 16-bit activations, which ONNX Runtime computes in float."""
    made, read = graph.producers(), graph.consumers()
    front, tail = _front(graph), _tail(graph)
    nodes = {n.output for n in graph.nodes if n.output not in front | tail and _can_be_integer(graph, n)}
    absorbed: dict[str, str] = {}
    gates: dict[str, Node] = {}
    for name in nodes:
        readers = read.get(name, [])
        if len(readers) != 1 or made[name].op not in WEIGHTED | {"Add"}:
            continue
        if readers[0].op == "Relu" or (readers[0].op == "Clip" and _lower_bound(graph, readers[0]) == 0):
            absorbed[name] = readers[0].output
        elif readers[0].op in GATES and made[name].op in WEIGHTED and not wide:
            gates[name] = readers[0]
    stored = {gate.output for gate in gates.values()}
    for node in graph.nodes:
        if node.output in nodes:
            stored.update(name for name in node.inputs if name not in graph.constants)
            # Without a dense layer behind it, a Gemm answers logits: its integer sums become float at once.
            if node.op != "Gemm" or read.get(node.output, [node])[0].output not in tail:
                stored.add(absorbed.get(node.output, node.output))
        elif node.op in PASSING and node.inputs[0] in stored and node.output not in tail:
            stored.add(node.output)
    return Plan(frozenset(nodes), frozenset(stored - set(gates)), absorbed, gates)


def _front(graph: Graph) -> set[str]:
    """Outputs of what lies before the first convolutions, of these, and of their activations."""
    made = graph.producers()
    before: set[str] = {INPUT}
    stems: set[str] = set()
    for node in graph.nodes:
        tensors = [name for name in node.inputs if name not in graph.constants]
        if node.op not in WEIGHTED and all(name in before for name in tensors):
            before.add(node.output)
        elif (node.op == "Conv" and tensors[0] in before) or (
            # An activation of a stem; x * sigmoid(x) is two of them.
            node.op in UNARY | {"Mul"} and all(name in stems and made[name].op in STEM for name in tensors)
        ):
            stems.add(node.output)
    return before | stems


def _tail(graph: Graph) -> set[str]:
    """Outputs of what lies behind the last layer with weights."""
    read = graph.consumers()
    tail: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op not in WEIGHTED and all(reader.output in tail for reader in read.get(node.output, [])):
            tail.add(node.output)
    return tail


def _can_be_integer(graph: Graph, node: Node) -> bool:
    if node.op in WEIGHTED:
        plain = node.op == "Conv" or (node.attributes.get("transB") == 1 and not node.attributes.get("transA"))
        return plain and all(name in graph.constants for name in node.inputs[1:])
    return node.op in INTEGER and not any(name in graph.constants for name in node.inputs)


def _lower_bound(graph: Graph, clip: Node) -> float | None:
    low = graph.constants.get(clip.inputs[1]) if len(clip.inputs) > 1 else None
    return None if low is None else float(low)


def quantize(graph: Graph, chosen: Plan, ranges: Mapping[str, tuple[float, float]], wide: bool) -> Graph:
    """Return the QDQ graph; `ranges`: smallest and largest value of each tensor the plan observes."""
    writer = _Writer(graph, chosen, ranges, np.dtype(np.uint16 if wide else np.uint8))
    for node in graph.nodes:
        writer.write(node)
    return writer.finish()


@dataclass(slots=True)
class _Writer:
    """The QDQ graph while it is written."""

    source: Graph
    plan: Plan
    ranges: Mapping[str, tuple[float, float]]
    dtype: np.dtype[Any]
    grids: dict[str, Grid] = field(default_factory=dict)
    real: dict[str, str] = field(default_factory=dict)
    """Tensor of the float graph -> what a reader of real numbers reads, where that is not the tensor itself."""
    bytes_: dict[str, str] = field(default_factory=dict)
    only_bytes: set[str] = field(default_factory=set)
    result: Graph = field(init=False)

    def __post_init__(self) -> None:
        opset = OPSET_16_BIT if self.dtype == np.uint16 else self.source.opset
        self.result = Graph(self.source.input_shape, opset, taken=set(self.source.taken))
        self.result.constants.update(self.source.constants)

    def write(self, node: Node) -> None:
        """Append what one float node becomes."""
        if node.output in self.plan.absorbed.values():
            return
        gate = self.plan.gates.get(node.inputs[0])
        if gate is node:
            self._gate(node)
            return
        integer = node.output in self.plan.nodes
        passing = node.op in PASSING and node.inputs[0] in self.real and node.output in self.plan.stored
        names = self.real if integer or passing else {name: self.real[name] for name in self.only_bytes}
        inputs = [names.get(name, name) for name in node.inputs]
        output = self.plan.absorbed.get(node.output, node.output)
        if integer and node.op in WEIGHTED:
            inputs = [inputs[0], *self._weights(node)]
        self.result.nodes.append(Node(node.op, inputs, output, dict(node.attributes)))
        if integer or passing:
            self.only_bytes.add(output)
        if passing:
            self.grids[output] = self.grids[node.inputs[0]]
        elif output in self.plan.gates:
            self.grids[output] = self._gate_grid(output)[0]
        if output in self.plan.stored or output in self.plan.gates:
            self._store(output)
        elif integer:
            self.only_bytes.discard(output)

    def finish(self) -> Graph:
        """Return the graph without what nobody reads."""
        read = self.result.consumers()
        self.result.nodes = [n for n in self.result.nodes if n.output in read or n.output == OUTPUT]
        return self.result

    def _grid(self, tensor: str) -> Grid:
        """The grid from the tensor's range, which is stretched to hold zero exactly."""
        low, high = min(self.ranges[tensor][0], 0.0), max(self.ranges[tensor][1], 0.0)
        levels = int(np.iinfo(self.dtype).max)
        scale = max(high - low, SMALLEST_SPAN) / levels
        return Grid(scale, min(max(round(-low / scale), 0), levels))

    def _gate_grid(self, tensor: str) -> tuple[Grid, float]:
        """The grid of a gate's input, and what must be added to that input so that it lies on the grid."""
        gate = self.plan.gates[tensor]
        if gate.op == "HardSwish":
            high = max(self.ranges[tensor][1], SMALLEST_SPAN)
            zero = max(math.floor(3 * 255 / (3 + high)), 1)
            return Grid(3 / zero, zero), 0.0
        alpha, beta = gate.attributes.get("alpha", 0.2), gate.attributes.get("beta", 0.5)
        scale, zero = 1 / (255 * alpha), math.floor(255 * beta)
        return Grid(scale, zero), (255 * beta - zero) * scale

    def _constants(self, grid: Grid, wish: str) -> tuple[str, str]:
        """Store a grid's scale and zero point; return their names."""
        scale = self.result.constant(np.array(grid.scale, np.float32), f"{wish}.scale")
        return scale, self.result.constant(np.array(grid.zero, self.dtype), f"{wish}.zero")

    def _store(self, tensor: str) -> None:
        """Append the pair that stores a tensor as integers and reads it back."""
        if tensor not in self.grids:
            self.grids[tensor] = self._grid(tensor)
        constants = self._constants(self.grids[tensor], tensor)
        self.bytes_[tensor] = self.result.add("QuantizeLinear", [tensor, *constants], f"{tensor}.q")
        self.real[tensor] = self.result.add("DequantizeLinear", [self.bytes_[tensor], *constants], f"{tensor}.dq")

    def _gate(self, gate: Node) -> None:
        """Append a HardSigmoid or HardSwish of bytes (see the top of this file)."""
        x, name, stored = gate.inputs[0], gate.output, self.bytes_[gate.inputs[0]]
        if gate.op == "HardSigmoid":
            constants = self._constants(Grid(1 / 255, 0), f"{name}.gate")
            self.real[name] = self.result.add("DequantizeLinear", [stored, *constants], f"{name}.dq")
            self.only_bytes.add(name)
            return
        grid = self.grids[x]
        if 2 * grid.zero < 255:
            bounds = [self.result.constant(np.array(v, self.dtype), f"{name}.bound") for v in (0, 2 * grid.zero)]
            stored = self.result.add("Clip", [stored, *bounds], f"{name}.clip")
        constants = self._constants(Grid(grid.scale / 6, 0), f"{name}.gate")
        opened = self.result.add("DequantizeLinear", [stored, *constants], f"{name}.open")
        self.result.nodes.append(Node("Mul", [self.real[x], opened], name))
        self.only_bytes.add(name)
        self._store(name)

    def _weights(self, node: Node) -> list[str]:
        """Append a layer's int8 weights, a scale a channel, and its int32 bias; return the names to read."""
        weight = self.source.constants[node.inputs[1]].astype(np.float64)
        channels = len(weight)
        bias = self.source.constants[node.inputs[2]].astype(np.float64) if len(node.inputs) > 2 else np.zeros(channels)
        if node.output in self.plan.gates:
            bias = bias + self._gate_grid(node.output)[1]
        step = self.grids[node.inputs[0]].scale
        peaks = np.abs(weight).reshape(channels, -1).max(axis=1) / 127
        floor = np.maximum(np.abs(bias) / step / 2**30, max(peaks.max() * SMALLEST_WEIGHT_SCALE, 1e-12))
        scales = np.maximum(peaks, floor).astype(np.float32)
        whole = np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1))).clip(-127, 127).astype(np.int8)
        sums = scales * np.float32(step)
        parts = []
        for array, scale, name in (
            (whole, scales, node.inputs[1]),
            (np.rint(bias / sums).astype(np.int32), sums, f"{node.output}.bias"),
        ):
            names = [self.result.constant(array, f"{name}.q"), self.result.constant(scale, f"{name}.scale")]
            names.append(self.result.constant(np.zeros(channels, array.dtype), f"{name}.zero"))
            parts.append(self.result.add("DequantizeLinear", names, f"{name}.dq", axis=0))
        return parts


def kept_float(graph: Graph, chosen: Plan) -> tuple[str, ...]:
    """Return what computes in float, such as "Conv x 1"."""
    integer = chosen.nodes | set(chosen.absorbed.values()) | {gate.output for gate in chosen.gates.values()}
    moves = PASSING | {"Cast", "Identity", "Pad"}
    counts = Counter(n.op for n in graph.nodes if n.output not in integer and n.op not in moves - {"MaxPool"})
    return tuple(f"{op} x {count}" for op, count in sorted(counts.items()))
