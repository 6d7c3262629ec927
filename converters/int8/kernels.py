"""Which kernel of TFLite computes what of a folded network: several nodes in one, some in float, most on integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.int8 import graph
from converters.int8.arithmetic import STEPS, Range

if TYPE_CHECKING:
    import keras


def always_float(node: Any) -> bool:
    """Say whether a node computes in float in every file."""
    return graph.activation(node.operation) in ("hard_swish", "softmax")


@dataclass(frozen=True, slots=True)
class Fused:
    """What a file computes in one operator: a weighted layer and the ReLU, or the shift and ReLU6, behind it.

    Attributes:
        point: position of the last node, whose output is stored.
        passed: positions of the nodes behind the layer.
        shift: a constant that is added before the ReLU.
        ceiling: of the ReLU, in real units; infinite where there is none.
        floor: 0 behind a ReLU, else minus infinity.
    """

    point: int
    passed: tuple[int, ...]
    shift: float
    ceiling: float
    floor: float

    def bounds(self, span: Range) -> tuple[int, int]:
        """Return the lowest and highest level that the operator may answer."""
        low = span.zero if self.floor == 0 else 0
        high = min(STEPS, span.zero + int(np.rint(self.ceiling / span.scale))) if self.ceiling < np.inf else STEPS
        return low, high


def fused(core: keras.Model, points: frozenset[int]) -> dict[int, Fused]:
    """Find the weighted layers whose answer ends, with nothing but a shift and a ReLU on the way, at a point."""
    steps, found = graph.nodes(core), graph.readers(core)
    position = {id(node): i for i, node in enumerate(steps)}
    answer: dict[int, Fused] = {}
    for start, node in enumerate(steps):
        if not graph.weighted(node.operation):
            continue
        passed: list[int] = []
        shift, ceiling, floor = 0.0, np.inf, -np.inf
        last: Any | None = node
        while last is not None and position[id(last)] not in points:
            last = graph.only_reader(found, last)
            if last is None:
                break
            passed.append(position[id(last)])
            kind = graph.activation(last.operation)
            if kind in ("relu", "relu6"):
                floor, ceiling = 0.0, 6.0 if kind == "relu6" else np.inf
            elif (constant := graph.added_constant(last)) is not None and floor != 0:
                shift += constant
            else:
                last = None
        if last is not None:
            answer[start] = Fused(position[id(last)], tuple(passed), shift, ceiling, floor)
    return answer


def dynamic(core: keras.Model, classifier: int | None) -> frozenset[int]:
    """Name the classifier and what reshapes its row of inputs: they read float, and answer float."""
    if classifier is None:
        return frozenset()
    steps, found = graph.nodes(core), graph.readers(core)
    producer = graph.producers(core)
    answer = [classifier]
    while (before := producer.get(id(steps[answer[-1]].input_tensors[0]))) is not None:
        if not graph.reshapes(steps[before].operation) or graph.only_reader(found, steps[before]) is None:
            break
        answer.append(before)
    return frozenset(answer)
