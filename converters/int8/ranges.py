"""What the range of a point may be: that depends on what reads it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from converters.calibration import SMALLEST_SPAN
from converters.int8 import graph
from converters.int8.arithmetic import STEPS, Range

if TYPE_CHECKING:
    import keras

GATE = 6.0
"""Where the hard sigmoid relu6(x + 3) / 6 saturates."""

NUDGE = 1e-3

PARTS = 511
"""Of a sum's step, that its addends' steps are whole numbers of. As it is odd, no sum ever lies halfway between two
levels, nor nearer to that than 1/1022 of one. Runtimes' own roundings move it by less, unless an addend reaches four
times as far as the sum.
"""

FEWEST_PARTS = 50
"""Of the wider addend, or of one that is given: with fewer, the sum's range would grow by more than 2 %."""

SLACK = 5e-7
"""By which share a float32 step may miss: what is aligned stays as it is."""

Kind = Literal["free", "swish", "gate", "opening", "scores"]
"""free: anything that holds zero.
swish: read by a hard swish alone, which answers 0 below -3: level 0 is -3 exactly, nothing below is worth a level.
gate: relu6(x + 3) of a hard sigmoid: 0..6, always.   opening: a sixth of it: 0..1, always.
scores: the logits: what was seen, never clipped; where a classifier answers them, no file stores them as integers.
"""


def kinds(core: keras.Model, points: Iterable[int]) -> dict[int, Kind]:
    """Say of each point what its range may be."""
    steps, found = graph.nodes(core), graph.readers(core)
    producer = {id(tensor): node for node in steps for tensor in node.outputs}
    answer: dict[int, Kind] = {}
    for point in points:
        node = steps[point]
        source = producer.get(id(node.input_tensors[0]))
        reading = {graph.activation(reader.operation) for reader in found.get(id(node.outputs[0]), [])}
        if reading == {"hard_swish"}:
            answer[point] = "swish"
        elif _is_gate(node, source):
            answer[point] = "gate"
        elif source is not None and _is_opening(node, source, producer.get(id(source.input_tensors[0]))):
            answer[point] = "opening"
        elif _answers_scores(found, node):
            answer[point] = "scores"
        else:
            answer[point] = "free"
    return answer


def allowed(kind: Kind, low: float, high: float) -> Range:
    """Return the range of this kind that is nearest to what was seen."""
    if kind == "gate":
        return Range(0.0, GATE)
    if kind == "opening":
        return Range(0.0, 1.0)
    if kind == "swish":
        # A range that is of this kind already finds itself again: NUDGE is for its last bit.
        zero = max(int(np.floor(3 * STEPS / (3 + max(high, SMALLEST_SPAN)) + NUDGE)), 1)
        return Range(-3.0, 3 / zero * (STEPS - zero))
    low = min(low, 0.0)
    return Range(low, max(high, 0.0, low + SMALLEST_SPAN))


def aligned(core: keras.Model, kinds: Mapping[int, Kind], spans: Mapping[int, Range]) -> dict[int, Range]:
    """Return ranges a little wider, in which every runtime adds two tensors to the same levels.

    XNNPACK adds integers times factors of 21 bits, ONNX Runtime floats: of a million sums three lie so near to halfway
    between two levels that one rounds up and the other down, and a deep network makes another answer of that. It needs
    the steps of the addends to be whole 511ths of the sum's.

    Args:
        core: a folded network.
        kinds: of each point; only what is free becomes wider.
        spans: the range of each point, by its position.
    """
    producer = graph.producers(core)
    wider, done = dict(spans), set[int]()
    for position, node in enumerate(graph.nodes(core)):
        inputs = [producer.get(id(tensor), -1) for tensor in node.input_tensors]
        if (
            type(node.operation).__name__ != "Add"
            or len(inputs) != 2
            or inputs[0] == inputs[1]
            or not {position, *inputs} <= spans.keys()
        ):
            continue
        fixed = {one: one in done or kinds[one] != "free" for one in inputs}
        given, other = sorted(inputs, key=lambda one: (not fixed[one], -float(spans[one].scale)))
        parts = PARTS * float(wider[given].scale) / float(wider[position].scale)
        if kinds[position] != "free" or fixed[other] or parts < FEWEST_PARTS:
            continue
        wider[position] = _times(wider[position], parts / math.floor(parts * (1 + SLACK)))
        parts = PARTS * float(wider[other].scale) / float(wider[position].scale)
        wider[other] = _times(wider[other], math.ceil(parts * (1 - SLACK)) / parts)
        done |= {position, *inputs}
    return wider


def _times(span: Range, factor: float) -> Range:
    return Range(span.low * factor, span.high * factor)


def _is_gate(node: Any, source: Any | None) -> bool:
    """Say whether a node is the relu6(x + 3) of a hard sigmoid."""
    is_relu6 = graph.activation(node.operation) == "relu6"
    return is_relu6 and source is not None and graph.added_constant(source) == GATE / 2


def _is_opening(node: Any, gate: Any, before: Any | None) -> bool:
    """Say whether a node takes a sixth of a gate."""
    args = node.arguments.args
    scaled = type(node.operation).__name__ == "Multiply" and len(args) == 2 and isinstance(args[1], float)
    return scaled and bool(np.isclose(args[1], 1 / GATE)) and _is_gate(gate, before)


def _answers_scores(found: dict[int, list[Any]], node: Any) -> bool:
    """Say whether nothing but moves and a softmax or sigmoid lies behind a node."""
    while (reader := graph.only_reader(found, node)) is not None:
        if graph.activation(reader.operation) in ("softmax", "sigmoid"):
            return True
        if not graph.moves_only(reader.operation):
            return False
        node = reader
    return not found.get(id(node.outputs[0]))
