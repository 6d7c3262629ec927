"""What rounding each tensor costs the answers, in many ranges at once: by the gradients of the logits.

Rounding moves a tensor by a small e, and the logits by J e. For a random direction v, (v J e)^2 is |J e|^2 on average
(Hutchinson 1989, Communications in Statistics 18, 1059), and v J is one gradient, of all tensors together: it prices
each of them in as many ranges as one likes. A channel's mean error over all images is left out, as bias correction
repairs it behind the tensor. The costs of single tensors add up: of MobileNetV3-Small in one percentile or another, to
within a decibel of what the corrected network loses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.int8 import graph
from converters.int8.arithmetic import STEPS, Range
from converters.int8.sensitivity import TINY
from converters.int8.simulator import Simulator, State, Weights, write_weights

IMAGES = 100
"""That are looked at, spread evenly. Over three seeds MobileNetV3-Small's ranges cost .33 dB more than the best that
1200 directions tell, and .31 dB more by twice as many images.
"""

VALUES = 25_000_000
"""Of the tensors of a batch: their gradients, too, are in memory at once."""

SEED = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Noise that rounding one point alone adds to the logits, as a share of their power.

    Attributes:
        noise: in each range, [ranges].
        channels: of each channel by itself, [ranges, channels].
    """

    noise: np.ndarray
    channels: np.ndarray


def costs(
    simulator: Simulator,
    weights: Weights,
    choices: Mapping[int, Sequence[Range]],
    images: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, Cost]:
    """Price points in several ranges each.

    Args:
        simulator: of the network; its weights are written.
        weights: in float.
        choices: ranges to price, by the position of the point.
        images: uint8 [n, height, width, 3]; IMAGES of them are used.
        progress: called with the number of images done, and of all.

    Returns:
        What rounding costs, by point.
    """
    import tensorflow as tf

    write_weights(simulator.core, weights)
    images = images[:: -(-len(images) // IMAGES)]
    points = sorted(choices)
    scales = {point: np.array([span.scale for span in choices[point]], np.float32) for point in points}
    zeros = {point: np.array([span.zero for span in choices[point]], np.float32) for point in points}
    lowest = {p: np.float32(-3 if simulator.kinds[p] == "swish" else -np.inf) for p in points}  # below a swish is 0
    pixels, classes = (tuple(tensor.shape[1:]) for tensor in (simulator.core.inputs[0], simulator.core.outputs[0]))
    specs = (tf.TensorSpec((None, *pixels)), tf.TensorSpec((None, *classes)))  # the last batch may be smaller
    gradients = tf.function(_Gradients(simulator, points), autograph=False).get_concrete_function(*specs)
    moves = _moves()
    batch = max(1, VALUES // simulator.stored_values())
    rng = np.random.default_rng(SEED)
    moved: dict[int, list[tuple[np.ndarray, ...]]] = {point: [] for point in points}
    signal = 0.0
    for start in range(0, len(images), batch):
        x = simulator.read(images[start : start + batch])
        directions = rng.standard_normal((len(x), *classes)).astype(np.float32)
        values, slopes, power = gradients(tf.constant(x), tf.constant(directions))
        signal += float(power)
        for point, value, slope in zip(points, values, slopes, strict=True):
            found = moves(value, slope, lowest[point], scales[point], zeros[point])
            moved[point].append(tuple(np.asarray(part) for part in found))
        if progress:
            progress(min(start + batch, len(images)), len(images))
    return {point: _cost(parts, max(signal, TINY) / len(images)) for point, parts in moved.items()}


def noise_alone(
    simulator: Simulator, state: State, images: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> dict[int, float]:
    """Price each rounded point in the range that a state gives it; see costs."""
    choices = {point: (state.ranges[point],) for point in set(simulator.points) - simulator.float_points()}
    priced = costs(simulator, state.weights, choices, images, progress)
    return {point: float(cost.noise[0]) for point, cost in priced.items()}


def _cost(parts: list[tuple[np.ndarray, ...]], signal: float) -> Cost:
    """Put the batches' moves together: what is left of each range's without the mean error, squared, an image."""
    dots, slopes, means = zip(*parts, strict=True)
    mean = np.average(means, axis=0, weights=[len(dot) for dot in dots])
    left = np.concatenate(dots, axis=0) - np.concatenate(slopes, axis=0)[:, np.newaxis] * mean
    noise, channels = (np.square(move).mean(axis=0, dtype=np.float64) / signal for move in (left.sum(axis=2), left))
    return Cost(noise, channels)


class _Gradients:
    """A network's tensors, the gradients of its logits along directions by each of them, and its logits' power."""

    def __init__(self, simulator: Simulator, points: Sequence[int]) -> None:
        self._simulator, self._points = simulator, points

    def __call__(self, x: Any, directions: Any) -> tuple[list[Any], list[Any], Any]:
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

            answers = graph.run(self._simulator.core, x, call)
            logs = tf.math.log(tf.maximum(answers, TINY))
            logits = logs - tf.reduce_mean(logs, axis=1, keepdims=True)
            along = tf.reduce_sum(directions * logits)
        values = [held[point] for point in self._points]
        slopes = tape.gradient(along, values, unconnected_gradients="zero")
        power = tf.reduce_sum(tf.square(logits))
        return [_pixels(y) for y in values], [_pixels(y) for y in slopes], power


def _pixels(y: Any) -> Any:
    import tensorflow as tf

    return tf.reshape(y, (tf.shape(y)[0], -1, y.shape[-1]))


def _moves() -> Callable[..., Any]:
    """Return what rounds one tensor: compiled once, for tensors of any shape and any number of ranges.

    It answers by how much each channel moves the logits along each direction [n, ranges, channels], the gradient's sum
    over the pixels [n, channels], and the mean error [ranges, channels].
    """
    import tensorflow as tf

    def moves(value: Any, slope: Any, lowest: Any, scales: Any, zeros: Any) -> Any:
        exact = tf.maximum(value, lowest)

        def one(grid: tuple[Any, Any]) -> Any:
            scale, zero = grid
            low, high = -zero * scale, (STEPS - zero) * scale
            error = tf.quantization.fake_quant_with_min_max_vars(exact, low, high) - exact
            return tf.reduce_sum(slope * error, axis=1), tf.reduce_mean(error, axis=(0, 1))

        signature = (tf.float32, tf.float32)
        moved, mean = tf.map_fn(one, (scales, zeros), fn_output_signature=signature, parallel_iterations=1)
        return tf.transpose(moved, (1, 0, 2)), tf.reduce_sum(slope, axis=1), mean

    tensor, row = tf.TensorSpec((None, None, None), tf.float32), tf.TensorSpec((None,), tf.float32)
    specs = (tensor, tensor, tf.TensorSpec(()), row, row)
    compiled: Callable[..., Any] = tf.function(moves, autograph=False, input_signature=specs)
    return compiled
