"""How much each tensor's rounding costs: the logits' SQNR when it alone is rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from converters.int8 import arithmetic, graph
from converters.int8.simulator import Simulator, State, write_weights

TINY = float(np.finfo(np.float32).tiny)


class Sensitivity:
    """A folded network in real numbers, in which points and layers are rounded one at a time; compiled once."""

    def __init__(self, simulator: Simulator, state: State) -> None:
        """Prepare to round what `state` rounds; its weights are taken as float weights."""
        import tensorflow as tf

        write_weights(simulator.core, state.weights)
        self._simulator = simulator
        self._layers = tuple(state.weights)
        self._points_on = tf.Variable(np.zeros(len(simulator.points), bool), trainable=False)
        self._layers_on = tf.Variable(np.zeros(len(self._layers), bool), trainable=False)
        slots = {point: i for i, point in enumerate(simulator.points)}
        layer_slots = {name: i for i, name in enumerate(self._layers)}

        def call(node: Any, *args: Any, **kwargs: Any) -> Any:
            position, layer = simulator.position[id(node)], node.operation
            if graph.weighted(layer):
                kernel, bias = state.weights[layer.name]
                rounded = arithmetic.round_kernel(layer, kernel)
                kernel = tf.where(self._layers_on[layer_slots[layer.name]], rounded, kernel)
                y = graph.linear(layer, args[0], kernel, bias)
            else:
                y = layer(*args, **kwargs)
            slot = slots.get(position)
            if slot is None:
                return y
            return tf.where(self._points_on[slot], arithmetic.round_real(y, state.ranges[position]), y)

        self._answer = tf.function(lambda x: graph.run(simulator.core, x, call), autograph=False)

    def alone(self, images: np.ndarray, progress: Callable[[int, int], None] | None = None) -> dict[int, float]:
        """Return the SQNR of the logits, in dB, when a point alone is rounded; by position, of those that files round.

        Args:
            images: uint8 [n, height, width, 3].
            progress: called with the number of points done, and of all.
        """
        reference = self._logits(images, (), ())
        found = {}
        points = sorted(set(self._simulator.points) - self._simulator.float_points())
        for i, point in enumerate(points):
            found[point] = decibels(reference, self._logits(images, (point,), ()))
            if progress:
                progress(i + 1, len(points))
        return found

    def layers_alone(self, images: np.ndarray) -> dict[str, float]:
        """Return the SQNR of the logits, in dB, when a layer's weights alone are rounded; by the layer's name."""
        reference = self._logits(images, (), ())
        return {name: decibels(reference, self._logits(images, (), (name,))) for name in self._layers}

    def _logits(self, images: np.ndarray, points: Iterable[int], layers: Iterable[str]) -> np.ndarray:
        self._points_on.assign([point in points for point in self._simulator.points])
        self._layers_on.assign([name in layers for name in self._layers])
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
