"""How much each tensor's rounding costs: the logits' SQNR when it alone is rounded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from converters.int8 import arithmetic, graph
from converters.int8.simulator import Simulator, State, write_weights

TINY = float(np.finfo(np.float32).tiny)

NOTHING = -1
"""Is rounded."""


class Sensitivity:
    """A folded network in real numbers, of which one point or one layer is rounded at a time; compiled once."""

    def __init__(self, simulator: Simulator, state: State) -> None:
        """Prepare to round what `state` rounds; its weights are taken as float weights."""
        import tensorflow as tf

        write_weights(simulator.core, state.weights)
        self._simulator = simulator
        self._layers = {name: len(simulator.steps) + i for i, name in enumerate(state.weights)}
        """Number of each layer, after those of the points, which are their positions."""
        self._rounded = tf.Variable(NOTHING, trainable=False)

        def either(number: int, rounded: Callable[[], Any], whole: Any) -> Any:
            return tf.cond(tf.equal(self._rounded, number), rounded, lambda: whole)

        def call(node: Any, *args: Any, **kwargs: Any) -> Any:
            position, layer = simulator.position[id(node)], node.operation
            if graph.weighted(layer):
                kernel, bias = state.weights[layer.name]
                number = self._layers[layer.name]
                kernel = either(number, functools.partial(arithmetic.round_kernel, layer, kernel), kernel)
                y = graph.linear(layer, args[0], kernel, bias)
            else:
                y = layer(*args, **kwargs)
            if position not in simulator.kinds:
                return y
            return either(position, functools.partial(arithmetic.round_real, y, state.ranges[position]), y)

        self._answer = tf.function(lambda x: graph.run(simulator.core, x, call), autograph=False)

    def alone(self, images: np.ndarray, progress: Callable[[int, int], None] | None = None) -> dict[int, float]:
        """Return the SQNR of the logits, in dB, when a point alone is rounded; by position, of those that files round.

        Args:
            images: uint8 [n, height, width, 3].
            progress: called with the number of points done, and of all.
        """
        reference = self._logits(images)
        found = {}
        points = sorted(set(self._simulator.points) - self._simulator.float_points())
        for i, point in enumerate(points):
            found[point] = decibels(reference, self._logits(images, point))
            if progress:
                progress(i + 1, len(points))
        return found

    def layers_alone(self, images: np.ndarray) -> dict[str, float]:
        """Return the SQNR of the logits, in dB, when a layer's weights alone are rounded; by the layer's name."""
        reference = self._logits(images)
        return {name: decibels(reference, self._logits(images, number)) for name, number in self._layers.items()}

    def _logits(self, images: np.ndarray, rounded: int = NOTHING) -> np.ndarray:
        self._rounded.assign(rounded)
        return logits(np.asarray(self._answer(self._simulator.read(images))))


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Recover logits, but for a shift, from probabilities [n, classes]; float64."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), TINY))
    centred: np.ndarray = logs - logs.mean(axis=1, keepdims=True)
    return centred


def decibels(true: np.ndarray, rough: np.ndarray) -> float:
    """Return the signal to quantization noise ratio in dB; 200 without noise, -200 without signal."""
    noise, signal = float(np.square(true - rough).sum()), float(np.square(true).sum())
    if noise == 0:
        return 200.0
    return 10 * float(np.log10(signal / noise)) if signal > 0 else -200.0
