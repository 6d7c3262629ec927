"""What rounding each tensor costs the answers, in many ranges at once: by the gradients of the logits.

Rounding moves a tensor by a small e, and the logits by J e. For a random direction v, (v J e)^2 is |J e|^2 on average
(Hutchinson 1989, Communications in Statistics 18, 1059), and v J is one gradient, of all tensors together: it prices
each of them in as many ranges as one likes. A channel's mean error is left out, as bias correction repairs it behind
the tensor. The costs of single tensors add up: of MobileNetV3-Small in one percentile or another, to within a decibel
of what the corrected network loses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from converters.int8 import graph
from converters.int8.arithmetic import STEPS, Range
from converters.int8.sensitivity import TINY
from converters.int8.simulator import Simulator, Weights, write_weights

VALUES = 25_000_000
"""Of the tensors of a batch: their gradients, too, are in memory at once."""

MOST_IMAGES = 25
"""In a batch."""

SEED = 0


def costs(
    simulator: Simulator,
    weights: Weights,
    choices: Mapping[int, Sequence[Range]],
    images: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, np.ndarray]:
    """Price points in several ranges each.

    Args:
        simulator: of the network; its weights are written.
        weights: in float.
        choices: ranges to price, by the position of the point.
        images: uint8 [n, height, width, 3].
        progress: called with the number of images done, and of all.

    Returns:
        Noise that rounding this point alone adds to the logits, as a share of their power, [ranges] by point.
    """
    import tensorflow as tf

    write_weights(simulator.core, weights)
    points = sorted(choices)
    scales = {point: np.array([span.scale for span in choices[point]], np.float32) for point in points}
    zeros = {point: np.array([span.zero for span in choices[point]], np.float32) for point in points}
    lowest = {p: np.float32(-3 if simulator.kinds[p] == "swish" else -np.inf) for p in points}  # below a swish is 0
    slopes, priced = tf.function(_Slopes(simulator, points), autograph=False), _pricing()
    batch = max(1, min(MOST_IMAGES, VALUES // simulator.stored_values()))
    classes = simulator.core.outputs[0].shape[-1]
    rng = np.random.default_rng(SEED)
    noise = {point: np.zeros(len(choices[point])) for point in points}
    signal = 0.0
    for start in range(0, len(images), batch):
        x = simulator.read(images[start : start + batch])
        direction = rng.standard_normal((len(x), classes)).astype(np.float32)
        values, gradients, power = slopes(tf.constant(x), tf.constant(direction))
        signal += float(power)
        for point, value, gradient in zip(points, values, gradients, strict=True):
            noise[point] += np.asarray(priced(value, gradient, lowest[point], scales[point], zeros[point]))
        if progress:
            progress(min(start + batch, len(images)), len(images))
    return {point: total / max(signal, TINY) for point, total in noise.items()}


class _Slopes:
    """A network's tensors, the gradient of its logits along a direction by each of them, and its logits' power."""

    def __init__(self, simulator: Simulator, points: Sequence[int]) -> None:
        self._simulator, self._points = simulator, points

    def __call__(self, x: Any, direction: Any) -> tuple[list[Any], list[Any], Any]:
        """Answer float images; tensors and gradients are [n, pixels, channels]."""
        import tensorflow as tf

        held: dict[int, Any] = {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def call(node: Any, *args: Any, **kwargs: Any) -> Any:
                y = node.operation(*args, **kwargs)
                position = self._simulator.position[id(node)]
                if position in self._points:
                    tape.watch(y)
                    held[position] = y
                return y

            logs = tf.math.log(tf.maximum(graph.run(self._simulator.core, x, call), TINY))
            logits = logs - tf.reduce_mean(logs, axis=1, keepdims=True)
            along = tf.reduce_sum(direction * logits)
        values = [held[point] for point in self._points]
        gradients = tape.gradient(along, values, unconnected_gradients="zero")
        return [_pixels(y) for y in values], [_pixels(y) for y in gradients], tf.reduce_sum(tf.square(logits))


def _pixels(y: Any) -> Any:
    import tensorflow as tf

    return tf.reshape(y, (tf.shape(y)[0], -1, y.shape[-1]))


def _pricing() -> Callable[..., Any]:
    """Return what prices one tensor: compiled once, for tensors of any shape and any number of ranges."""
    import tensorflow as tf

    def priced(value: Any, gradient: Any, lowest: Any, scales: Any, zeros: Any) -> Any:
        exact = tf.maximum(value, lowest)

        def one(grid: tuple[Any, Any]) -> Any:
            scale, zero = grid
            error = tf.clip_by_value(tf.round(exact / scale), -zero, STEPS - zero) * scale - exact
            error -= tf.reduce_mean(error, axis=(0, 1), keepdims=True)
            return tf.reduce_sum(tf.square(tf.reduce_sum(gradient * error, axis=(1, 2))))

        return tf.map_fn(one, (scales, zeros), fn_output_signature=tf.float32, parallel_iterations=1)

    tensor, row = tf.TensorSpec((None, None, None), tf.float32), tf.TensorSpec((None,), tf.float32)
    signature = (tensor, tensor, tf.TensorSpec(()), row, row)
    compiled: Callable[..., Any] = tf.function(priced, autograph=False, input_signature=signature)
    return compiled
