"""Where an int8 network loses: for each operator the SQNR of its weights and of its answer, alone and accumulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.int8 import graph, islands
from converters.int8.sensitivity import Sensitivity, decibels
from converters.int8.simulator import Simulator, State, write_weights

IMAGES = 16
LEVELS_WORTH = 4.0
"""A range this many times wider than what 99.9 % of the values need is an outlier's."""

SPREAD = 16.0
"""Between the largest and the median channel."""

HARMLESS_DB = 35.0


@dataclass(frozen=True, slots=True)
class Loss:
    """What one operator loses.

    Attributes:
        layer: name of the Keras layer.
        weights_db: SQNR of the network's logits when its weights alone are in 8 bits; None without weights.
        activation_db: SQNR of the network's logits when its answer alone is in 8 bits.
        accumulated_db: SQNR of its answer in the quantized network, with all that was lost before it.
        kept_float: it computes in float.
        why: a word on why; "" where it loses little.
    """

    layer: str
    weights_db: float | None
    activation_db: float
    accumulated_db: float
    kept_float: bool
    why: str


def explain(
    simulator: Simulator,
    float_state: State,
    state: State,
    images: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Loss, ...]:
    """Return what each operator loses, worst first: by the worse of weights and activation alone.

    Args:
        simulator: of the network; its weights are written.
        float_state: float weights, with the ranges of `state`.
        state: what the file holds.
        images: uint8 [n, height, width, 3]; IMAGES of them are used.
        progress: called with the number of points done, and of all.
    """
    images = images[:: max(1, len(images) // IMAGES)][:IMAGES]
    sensitivity = Sensitivity(simulator, float_state)
    activations = dict.fromkeys(simulator.points, 200.0) | sensitivity.alone(images, progress)
    weights = sensitivity.layers_alone(images)
    true = _answers(simulator, float_state, images)
    answered = simulator.answered(images, state)
    layer_of = _layers(simulator)
    losses = []
    for point in simulator.points:
        name = layer_of.get(point, "")
        shown = name or simulator.steps[point].operation.name
        rough = answered[point]
        exact = true[point]
        if simulator.kinds[point] == "swish":  # below -3 it answers 0, whatever is stored
            exact, rough = np.maximum(exact, -3), np.maximum(rough, -3)
        worst = min(activations[point], weights.get(name, 200.0))
        losses.append(
            Loss(
                layer=shown,
                weights_db=weights.get(name),
                activation_db=activations[point],
                accumulated_db=decibels(exact, rough),
                kept_float=point in state.kept_float,
                why=_why(simulator, state, point, true[point], activations[point], weights.get(name))
                if worst < HARMLESS_DB
                else "",
            )
        )
    return tuple(sorted(losses, key=lambda loss: min(loss.activation_db, loss.weights_db or 200.0)))


def _layers(simulator: Simulator) -> dict[int, str]:
    """Map a point to the weighted layer whose operator ends there."""
    answer = {}
    for one in islands.operators(simulator):
        for position in one:
            if graph.weighted(simulator.steps[position].operation):
                answer[max(one)] = simulator.steps[position].operation.name
    return answer


def _answers(simulator: Simulator, state: State, images: np.ndarray) -> dict[int, np.ndarray]:
    import keras

    write_weights(simulator.core, state.weights)
    wanted = set(simulator.points)
    found: dict[int, np.ndarray] = {}

    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        y = node.operation(*args, **kwargs)
        if simulator.position[id(node)] in wanted:
            found[simulator.position[id(node)]] = np.asarray(y)
        return y

    graph.run(simulator.core, keras.ops.convert_to_tensor(simulator.read(images)), call)
    return found


def _why(
    simulator: Simulator, state: State, point: int, values: np.ndarray, activation_db: float, weights_db: float | None
) -> str:
    """Name what most likely makes this operator lose."""
    if weights_db is not None and weights_db < activation_db:
        node = next(n for n in simulator.steps if n.operation.name == _layers(simulator)[point])
        return _why_weights(node.operation, state.weights[node.operation.name][0])
    span = state.ranges[point]
    low, high = np.quantile(values, (0.0005, 0.9995))
    width = (span.high - span.low) / max(float(high - low), 1e-9)
    channels = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
    spread = float(channels.max() / max(float(np.median(channels)), 1e-9))
    if width > LEVELS_WORTH:
        return f"range outlier: {width:.0f} times wider than 99.9 % of its values need"
    if spread > SPREAD:
        return f"channel spread: the largest of its channels is {spread:.0f} times the median one"
    if simulator.kinds[point] == "swish":
        return "h-swish floor: 8 bits must hold -3..0 and all above"
    return "8 bits over its range"


def _why_weights(layer: Any, kernel: np.ndarray) -> str:
    axes = (0, 1) if graph.depthwise(layer) else tuple(range(kernel.ndim - 1))
    largest = np.abs(kernel).max(axis=axes)
    typical = np.sqrt(np.square(kernel).mean(axis=axes))
    spread = float(np.median(largest / np.maximum(typical, 1e-9)))
    kind = "depthwise" if graph.depthwise(layer) else "weight"
    return f"{kind} spread: a channel's largest weight is {spread:.0f} times its typical one"
