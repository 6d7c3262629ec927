"""What of a float ONNX graph becomes integer, and what stays float: decided before anything is written.

Decided elsewhere are ranges, and operators that the user or a search keeps in float (Wishes).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from converters.int8 import ranges as allowed_ranges
from converters.onnx_channels import UNARY
from converters.onnx_graph import INPUT, Graph, Node

WEIGHTED = frozenset(("Conv", "Gemm"))
INTEGER = frozenset({"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "Sigmoid", "LeakyRelu"})
STEM = UNARY | {"Conv"}
GATES = frozenset(("HardSigmoid", "HardSwish"))
PASSING = frozenset(("Reshape", "Flatten", "Transpose", "MaxPool"))
"""They move bytes without changing them: the output keeps the input's scale and zero point."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was decided about a graph's quantization before it.

    Attributes:
        ranges: smallest and largest value of a tensor.
        keep_float: the nodes that answer these tensors compute in float.
        image_scale: real value of one level of the input.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    keep_float: Collection[str] = ()
    image_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes integer.

    Attributes:
        nodes: outputs of the nodes that compute on integers.
        stored: the tensors that are stored as integers.
        observed: the tensors whose range must be known.
        absorbed: output of a convolution -> output of the Relu or Clip behind it, which saturation replaces.
        ceilings: output of such a Relu or Clip -> the most that it answers; the least is 0.
        gates: output of a convolution -> the HardSigmoid or HardSwish that alone reads it.
        stems: output of a first convolution that sums integers in float -> the level of the image that it reads as 0.
        image_scale: real value of one level of the image.
    """

    nodes: frozenset[str] = frozenset()
    stored: frozenset[str] = frozenset()
    observed: frozenset[str] = frozenset()
    absorbed: Mapping[str, str] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)
    gates: Mapping[str, Node] = field(default_factory=dict)
    stems: Mapping[str, int] = field(default_factory=dict)
    image_scale: float = 1.0


NOTHING = Plan()


def plan(graph: Graph, wide: bool, wishes: Wishes) -> Plan:
    """Decide what becomes integer; `wide`: 16-bit activations, which ONNX Runtime computes in float."""
    read, ceilings = graph.consumers(), _ceilings(graph)
    ends = _ends(graph, ceilings)
    kept = {n.output for n in graph.nodes if {n.output, ends.get(n.output)} & set(wishes.keep_float)}
    stems = {} if wide else {name: zero for name, zero in _stems(graph, ends, wishes).items() if name not in kept}
    outside = _front(graph, stems) | _tail(graph)
    nodes = {n.output for n in graph.nodes if n.output not in outside | kept and _can_be_integer(graph, n)}
    # Without a dense layer behind it, a Gemm answers logits: its integer sums become float at once.
    logits = {n.output for n in graph.nodes if n.op == "Gemm" and read.get(n.output, [n])[0].output in outside}
    absorbed = {name: end for name, end in ends.items() if name in nodes - logits}
    ceilings = {end: ceilings[end] for end in absorbed.values()}
    gates = {} if wide else _gates(graph, nodes, kept, wishes)
    stored = {gate.output for gate in gates.values()}
    moved = {gate.output for gate in gates.values() if gate.op == "HardSigmoid"}
    for node in graph.nodes:
        if node.output in nodes:
            if node.output not in stems:
                stored.update(name for name in node.inputs if name not in graph.constants)
            if node.output not in logits:
                stored.add(absorbed.get(node.output, node.output))
        elif node.op in PASSING and node.inputs[0] in stored and node.output not in outside:
            stored.add(node.output)
            moved.add(node.output)
    stored -= set(gates)
    observed = stored - moved | {name for name, gate in gates.items() if gate.op == "HardSwish"}
    return Plan(
        nodes=frozenset(nodes),
        stored=frozenset(stored),
        observed=frozenset(observed),
        absorbed=absorbed,
        ceilings=ceilings,
        gates=gates,
        stems=stems,
        image_scale=wishes.image_scale,
    )


def decided(graph: Graph, chosen: Plan, wishes: Wishes) -> dict[str, tuple[float, float]]:
    """Return what is decided of the ranges that a plan needs; what only moves has the range of what it moves."""
    made = graph.producers()
    found: dict[str, tuple[float, float]] = {}
    for name in chosen.observed:
        source = name
        while source not in wishes.ranges and source in made and made[source].op in PASSING:
            source = made[source].inputs[0]
        if source in wishes.ranges:
            found[name] = wishes.ranges[source]
    return found


def _gates(graph: Graph, nodes: Collection[str], kept: Collection[str], wishes: Wishes) -> dict[str, Node]:
    """Map the outputs of integer layers to the HardSigmoid or HardSwish that alone reads them and can be their bytes.

    A HardSwish whose reader computes in float is float, too: as in TFLite, where each is, no rounding lies between.
    """
    made, read = graph.producers(), graph.consumers()
    found: dict[str, Node] = {}
    for name in nodes:
        readers = read.get(name, [])
        if len(readers) != 1 or readers[0].op not in GATES or made[name].op not in WEIGHTED:
            continue
        gate = readers[0]
        on_grid = name not in wishes.ranges or _cuts_at_minus_three(*wishes.ranges[name])
        among_floats = any(node.output in kept for node in (gate, *read.get(gate.output, [])))
        if gate.op == "HardSigmoid" or (on_grid and not among_floats):
            found[name] = gate
    return found


def _ends(graph: Graph, ceilings: Collection[str]) -> dict[str, str]:
    """Map a convolution's, dense layer's or addition's output to the activation's that alone reads it."""
    made, read = graph.producers(), graph.consumers()
    found: dict[str, str] = {}
    for name, node in made.items():
        readers = read.get(name, [])
        if len(readers) == 1 and node.op in WEIGHTED | {"Add"} and readers[0].output in ceilings:
            found[name] = readers[0].output
    return found


def _ceilings(graph: Graph) -> dict[str, float]:
    """Map the output of each Relu, and of each Clip at zero, to the most that it answers."""
    found: dict[str, float] = {}
    for node in graph.nodes:
        low, high = (*node.inputs[1:], "", "")[:2]
        if node.op == "Relu" or (node.op == "Clip" and _number(graph, low) == 0 and not high):
            found[node.output] = np.inf
        elif node.op == "Clip" and _number(graph, low) == 0 and not np.isnan(_number(graph, high)):
            found[node.output] = _number(graph, high)
    return found


def _number(graph: Graph, name: str) -> float:
    """Return a constant that is one number; NaN for anything else."""
    array = graph.constants.get(name)
    return float(array.reshape(())) if array is not None and array.size == 1 else np.nan


def _cuts_at_minus_three(low: float, high: float) -> bool:
    """Say whether level 0 of a range is where a hard swish begins to answer."""
    span = allowed_ranges.allowed("free", low, high)
    return bool(np.isclose(float(span.scale) * span.zero, 3, rtol=1e-6, atol=0))


def _stems(graph: Graph, ends: Mapping[str, str], wishes: Wishes) -> dict[str, int]:
    """Map the convolutions whose range is decided, and that read the image less a level, to this level."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        if ends.get(node.output, node.output) in wishes.ranges and node.op == "Conv" and _can_be_integer(graph, node):
            zero = _image_zero(graph, node.inputs[0])
            if zero is not None:
                found[node.output] = zero
    return found


def _image_zero(graph: Graph, tensor: str) -> int | None:
    """Return z where a tensor holds the levels of the image less z, moved and padded at most; else None."""
    made, zero = graph.producers(), 0
    while tensor != INPUT:
        node = made.get(tensor)
        if node is None or node.op not in ("Reshape", "Transpose", "Cast", "Pad", "Add"):
            return None
        added = np.float32(_number(graph, node.inputs[1])) if node.op == "Add" else np.float32(0)
        if not added.is_integer():
            return None
        zero, tensor = zero - int(added), node.inputs[0]
    return zero if 0 <= zero <= 255 else None


def _front(graph: Graph, integer: Collection[str]) -> set[str]:
    """Outputs of what lies before the first convolutions, of these but the integer ones, and of their activations."""
    made = graph.producers()
    before: set[str] = {INPUT}
    stems: set[str] = set()
    for node in graph.nodes:
        tensors = [name for name in node.inputs if name not in graph.constants]
        if node.op not in WEIGHTED and all(name in before for name in tensors):
            before.add(node.output)
        elif (node.op == "Conv" and tensors[0] in before and node.output not in integer) or (
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


def kept_float(graph: Graph, chosen: Plan) -> tuple[str, ...]:
    """Return what computes in float, such as "Conv x 1"."""
    integer = (
        chosen.nodes - set(chosen.stems)
        | set(chosen.absorbed.values())
        | {gate.output for gate in chosen.gates.values()}
    )
    moves = PASSING | {"Cast", "Identity", "Pad"}
    counts = Counter(n.op for n in graph.nodes if n.output not in integer and n.op not in moves - {"MaxPool"})
    return tuple(f"{op} x {count}" for op, count in sorted(counts.items()))
