"""A float graph into QDQ form: uint8 activations, int8 weights a channel, shaped so that ONNX Runtime runs it on bytes.

What stays float, and why:

- the first convolution with its activation: from three channels ONNX Runtime's int8 kernel is slower than its float
  one, and the first layer's activations are those that lose most in 8 bits. Where its range is decided (see Wishes), it
  answers what an int8 kernel would, at the float kernel's speed: that sums the integers themselves, and whole numbers
  below 2^24 are exact in float32;
- the last dense layer's output: its 8-bit sums go straight into a float softmax, so that logits never saturate, nor
  are two of them equal. Given the same ranges, little else sets the answers apart from those of the TFLite file.

What would cost most does not stay float. ONNX Runtime has no int8 HardSigmoid or HardSwish, and would cut the network
at each:

- HardSigmoid(x) = clip(a x + b, 0, 1) is the saturation of the bytes themselves: x + b/a is stored with a scale of
  1 / 255a, such that byte 0 is where the sigmoid leaves 0 and byte 255 where it reaches 1. The same bytes read with
  scale 1 / 255 *are* the sigmoid.
- HardSwish(x) = x * clip(x + 3, 0, 6) / 6: x is stored with scale 3 / z and zero point z, so byte 0 is -3, below which
  the answer is 0 anyway. The same bytes, clipped at 2 z and read with scale 1 / 2z, are the gate, exactly.

Scales, zero points, weights and biases are computed in float32 as converters.int8.arithmetic and TFLite's quantizer do
it, so that the same ranges give the same integers in every file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.int8 import ranges as allowed_ranges
from converters.int8.arithmetic import SMALLEST_SCALE
from converters.onnx_graph import OPSET_16_BIT, OUTPUT, Graph, Node
from converters.onnx_plan import PASSING, WEIGHTED, Plan

LARGEST_SUM = 2.0**24
"""Up to which float32 holds every whole number."""

LARGEST_BIAS = 2**30
"""In steps: a dead channel's weight scale near zero would make the int32 bias overflow."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How the integers of one tensor stand for real numbers: real = (integer - zero) * scale."""

    scale: np.float32
    zero: int

    @classmethod
    def spanning(cls, low: float, high: float, levels: int) -> Grid:
        """Span a range that holds zero; for 255 levels as converters.int8.arithmetic.Range does."""
        scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(levels))
        return cls(scale, int(np.clip(np.rint(np.float32(-low) / scale), 0, levels)))


def quantize(graph: Graph, chosen: Plan, ranges: Mapping[str, tuple[float, float]], wide: bool) -> Graph:
    """Return the QDQ graph; `ranges`: smallest and largest value of each tensor the plan observes."""
    writer = _Writer(graph, chosen, ranges, np.dtype(np.uint16 if wide else np.uint8))
    for node in graph.nodes:
        writer.write(node)
    return writer.finish()


@dataclass(frozen=True, slots=True)
class _Whole:
    """A layer's parameters as whole float32 numbers.

    Attributes:
        weight: steps of `scale`, -127..127.
        scale: real value of one step of each output channel's weights.
        bias: steps of `unit`.
        unit: real value of one step of each output channel's sums.
    """

    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    unit: np.ndarray


OPSET_AXES_READ = 18
"""From which on these operators read their axes, as ReduceSum does before; tf2onnx writes an older one."""

_AXES_READ = {
    f"Reduce{what}" for what in ("Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
}


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
        if passing:
            self.grids[output] = self.grids[node.inputs[0]]
        elif output in self.plan.stored or output in self.plan.gates:
            self.grids[output] = self._grid(output)
        steps: np.ndarray | None = None
        if node.output in self.plan.stems:
            parameters, steps = self._sums(node)
            inputs = [inputs[0], *parameters]
        elif integer and node.op in WEIGHTED:
            inputs = [inputs[0], *self._weights(node)]
        elif node.op in WEIGHTED and node.inputs[0] in self.only_bytes and node.inputs[1] in self.source.constants:
            inputs[0] = self._read_apart(node)
        attributes = dict(node.attributes)
        if node.op in _AXES_READ and "axes" in attributes and self.result.opset >= OPSET_AXES_READ:
            inputs.append(self.result.constant(np.array(attributes.pop("axes"), np.int64), f"{node.output}_axes"))
        self.result.nodes.append(Node(node.op, inputs, output, attributes))
        if output in self.grids:
            self._store(output, self._levels(output), steps)
            if integer or passing:
                self.only_bytes.add(output)

    def finish(self) -> Graph:
        """Return the graph without what nobody reads."""
        read = self.result.consumers()
        self.result.nodes = [n for n in self.result.nodes if n.output in read or n.output == OUTPUT]
        return self.result

    def _grid(self, tensor: str) -> Grid:
        """The grid of a tensor: its range holds zero, and a gate's input lies so that the gate is its bytes."""
        gate = self.plan.gates.get(tensor)
        if gate is not None and gate.op == "HardSigmoid":
            return Grid.spanning(0.0, 1 / gate.attributes.get("alpha", 0.2), 255)
        low, high = self.ranges[tensor]
        if self.dtype != np.uint8 and tensor in self.plan.ceilings:  # the runtime has no Clip of 16-bit integers
            low, high = max(low, 0.0), min(high, self.plan.ceilings[tensor])
        span = allowed_ranges.allowed("free" if gate is None else "swish", low, high)
        return Grid.spanning(span.low, span.high, int(np.iinfo(self.dtype).max))

    def _levels(self, tensor: str) -> tuple[int, int]:
        """Between which levels a tensor lies, for the sake of the activation that saturation replaces."""
        most, ceiling = int(np.iinfo(self.dtype).max), self.plan.ceilings.get(tensor)
        if ceiling is None:
            return 0, most
        grid = self.grids[tensor]
        return grid.zero, min(grid.zero + int(np.rint(ceiling / grid.scale)), most) if ceiling < np.inf else most

    def _constants(self, grid: Grid, wish: str) -> tuple[str, str]:
        """Store a grid's scale and zero point; return their names."""
        scale = self.result.constant(np.array(grid.scale, np.float32), f"{wish}.scale")
        return scale, self.result.constant(np.array(grid.zero, self.dtype), f"{wish}.zero")

    def _store(self, tensor: str, levels: tuple[int, int] | None = None, steps: np.ndarray | None = None) -> None:
        """Append the pair that stores a tensor as integers and reads it back.

        Args:
            tensor: its grid is known.
            levels: the lowest and the highest that it may hold; None for all.
            steps: of a tensor that holds sums of integers: how many of them make one level, a channel.
        """
        grid = self.grids[tensor]
        constants = self._constants(grid, tensor)
        if steps is None:
            stored = self.result.add("QuantizeLinear", [tensor, *constants], f"{tensor}.q")
        else:
            names = [self.result.constant(steps, f"{tensor}.steps")]
            names.append(self.result.constant(np.full(len(steps), grid.zero, self.dtype), f"{tensor}.zeros"))
            stored = self.result.add("QuantizeLinear", [tensor, *names], f"{tensor}.q", axis=1)
        self.bytes_[tensor] = self._clipped(stored, levels, tensor)
        self.real[tensor] = self.result.add("DequantizeLinear", [self.bytes_[tensor], *constants], f"{tensor}.dq")

    def _read_apart(self, node: Node) -> str:
        """Append what reads bytes for a layer that computes in float; return the name to read.

        Between DequantizeLinear and QuantizeLinear with one scale each, ONNX Runtime quantizes a layer whatever the
        file says, with one scale for all of its weights. It leaves alone what reads a scale a channel: here all equal.
        """
        tensor, weight = node.inputs[0], self.source.constants[node.inputs[1]]
        grid = self.grids[tensor]
        if node.op == "Conv":
            axis, channels = 1, weight.shape[1] * int(node.attributes.get("group", 1))
        else:
            axis, channels = -1, weight.shape[1 if node.attributes.get("transB") else 0]
        names = [self.result.constant(np.full(channels, grid.scale, np.float32), f"{tensor}.scales")]
        names.append(self.result.constant(np.full(channels, grid.zero, self.dtype), f"{tensor}.zeros"))
        return self.result.add("DequantizeLinear", [self.bytes_[tensor], *names], f"{tensor}.apart", axis=axis)

    def _clipped(self, stored: str, levels: tuple[int, int] | None, wish: str) -> str:
        """Append a Clip of bytes, where there is anything to clip; return the name to read."""
        if levels is None or levels == (0, int(np.iinfo(self.dtype).max)):
            return stored
        bounds = [self.result.constant(np.array(level, self.dtype), f"{wish}.bound") for level in levels]
        return self.result.add("Clip", [stored, *bounds], f"{wish}.clip")

    def _gate(self, gate: Node) -> None:
        """Append a HardSigmoid or HardSwish of bytes (see the top of this file)."""
        x, name, stored = gate.inputs[0], gate.output, self.bytes_[gate.inputs[0]]
        self.only_bytes.add(name)
        if gate.op == "HardSigmoid":
            constants = self._constants(Grid.spanning(0.0, 1.0, 255), f"{name}.gate")
            self.real[name] = self.result.add("DequantizeLinear", [stored, *constants], f"{name}.dq")
            self.grids[name], self.bytes_[name] = Grid.spanning(0.0, 1.0, 255), stored
            return
        grid = self.grids[x]
        opening = self._clipped(stored, (0, min(2 * grid.zero, 255)), name)
        constants = self._constants(Grid(grid.scale / np.float32(6), 0), f"{name}.gate")
        opened = self.result.add("DequantizeLinear", [opening, *constants], f"{name}.open")
        self.result.nodes.append(Node("Mul", [self.real[x], opened], name))
        self.grids[name] = self._grid(name)
        self._store(name)

    def _weights(self, node: Node) -> list[str]:
        """Append a layer's int8 weights, a scale a channel, and its int32 bias; return the names to read."""
        whole = self._whole(node, self.grids[node.inputs[0]].scale)
        parts = []
        for array, scale, name in (
            (whole.weight.astype(np.int8), whole.scale, node.inputs[1]),
            (whole.bias.astype(np.int32), whole.unit, f"{node.output}.bias"),
        ):
            names = [self.result.constant(array, f"{name}.q"), self.result.constant(scale, f"{name}.scale")]
            names.append(self.result.constant(np.zeros(len(array), array.dtype), f"{name}.zero"))
            parts.append(self.result.add("DequantizeLinear", names, f"{name}.dq", axis=0))
        return parts

    def _sums(self, node: Node) -> tuple[list[str], np.ndarray]:
        """Store a first convolution's weights and bias as whole numbers in float.

        Returns:
            Their names, and how many units of the sum make one level of its output, a channel.
        """
        zero, grid = self.plan.stems[node.output], self.grids[self.plan.absorbed.get(node.output, node.output)]
        whole = self._whole(node, np.float32(self.plan.image_scale), 1 / self.plan.image_scale)
        weights = np.abs(whole.weight).reshape(len(whole.weight), -1).sum(axis=1)
        most = max(zero, 255 - zero) * weights + np.abs(whole.bias)
        multiples, steps = _division(whole.unit / grid.scale, grid.zero, most)
        weight = whole.weight * multiples.reshape(-1, *[1] * (whole.weight.ndim - 1))
        names = [self.result.constant(weight, f"{node.inputs[1]}.whole")]
        names.append(self.result.constant(whole.bias * multiples, f"{node.output}.bias.whole"))
        return names, steps

    def _whole(self, node: Node, input_scale: np.float32, stretch: float = 1.0) -> _Whole:
        """Round a layer's weights and bias; `stretch`: what the graph's weights lack to those that read real units."""
        weight = (self.source.constants[node.inputs[1]].astype(np.float64) * stretch).astype(np.float32)
        bias = self.source.constants[node.inputs[2]] if len(node.inputs) > 2 else np.zeros(len(weight))
        bias = bias.astype(np.float32) + np.float32(self._shift(node.output))
        peaks = np.abs(weight).reshape(len(weight), -1).max(axis=1) / np.float32(127)
        scale = np.maximum(peaks, np.abs(bias) / (input_scale * np.float32(LARGEST_BIAS)))
        scale = np.where(scale < SMALLEST_SCALE, np.float32(1), scale)
        unit = input_scale * scale
        return _Whole(np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))), scale, np.rint(bias / unit), unit)

    def _shift(self, output: str) -> float:
        """What must be added to a HardSigmoid's input so that byte 0 is where it leaves 0."""
        gate = self.plan.gates.get(output)
        if gate is None or gate.op != "HardSigmoid":
            return 0.0
        return float(gate.attributes.get("beta", 0.5) / gate.attributes.get("alpha", 0.2))


def _division(factors: np.ndarray, zero: int, most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find how to divide sums of integers so that they are rounded as an int8 kernel rounds them.

    That multiplies by a float32 factor; QuantizeLinear divides. The float32 number nearest to the factor's inverse
    sends a few sums, whose products lie midway between two levels, the other way. Sums that are 3 or 5 or 7 times as
    large have divisors that lie otherwise among the float32 numbers; one of them is right for all, as a rule.

    Args:
        factors: [channels].
        zero: level that stands for 0.
        most: how large a sum can be, [channels].

    Returns:
        What to multiply the sums by, small whole numbers, and what to divide these by; [channels] each.
    """
    halves = np.arange(-zero, 255 - zero) + 0.5
    below = np.floor(halves / factors[:, np.newaxis].astype(np.float64))
    sums = np.concatenate([below, below + 1], axis=1).astype(np.float32)
    wanted, possible = np.rint(sums * factors[:, np.newaxis]), np.abs(sums) <= most[:, np.newaxis]
    multiples, divisors = np.ones_like(factors), np.zeros_like(factors)
    fewest = np.full(len(factors), sums.shape[1] + 1)
    for multiple in range(1, 32, 2):
        inverse = (multiple / factors.astype(np.float64)).astype(np.float32)
        for ulps in (0, 1, -1, 2, -2, 3, -3, 4, -4):
            divisor = (inverse.view(np.int32) + ulps).view(np.float32)
            answers = np.rint(sums * np.float32(multiple) / divisor[:, np.newaxis])
            wrong = ((answers != wanted) & possible).sum(axis=1)
            better = (wrong < fewest) & ((multiple == 1) | (most * multiple < LARGEST_SUM))
            multiples, divisors = np.where(better, multiple, multiples), np.where(better, divisor, divisors)
            fewest = np.where(better, wrong, fewest)
    return multiples.astype(np.float32), divisors
