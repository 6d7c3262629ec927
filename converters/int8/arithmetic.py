"""What XNNPACK's int8 kernels compute, in whole float32 numbers: exact as long as sums stay below 2^24.

Sources: XNNPACK's requantization (fp32: the integer sum times one float32 factor, rounded half to even), its qs8 add
(multipliers of 21 bits, rounded half up), multiply and mean (fp32 again); and the order in which its float kernels add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.int8 import graph

STEPS = 255
INPUT = -1

SMALLEST_SCALE = 1e-30
"""Of weights: smaller ones are none, and products of their scale would leave float32."""


@dataclass(frozen=True, slots=True)
class Range:
    """What the levels of one tensor span, in real units; zero lies between and on a level."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """Real value of one level."""
        return np.float32((np.float32(self.high) - np.float32(self.low)) / np.float32(STEPS))

    @property
    def zero(self) -> int:
        """Level, 0..255, that stands for 0."""
        return int(np.clip(np.rint(np.float32(-self.low) / self.scale), 0, STEPS))


@dataclass(frozen=True, slots=True)
class Levels:
    """A tensor of integers: real = values * scale.

    Attributes:
        values: whole float32 numbers, levels less the zero level.
        scale: real value of one level.
        point: position of the node whose output this is; INPUT for the image.
        exact: the real numbers before they were rounded, where they were computed in float; None elsewhere.
    """

    values: Any
    scale: np.float32
    point: int
    exact: Any = None

    def real(self) -> Any:
        """Return what the integers stand for."""
        return self.values * self.scale

    def unrounded(self) -> Any:
        """Return what an operator in float reads: nothing is rounded on the way from one such operator to another."""
        return self.real() if self.exact is None else self.exact

    def moved(self, move: Callable[[Any], Any]) -> Levels:
        """Return the same numbers in another shape or order."""
        return replace(self, values=move(self.values), exact=None if self.exact is None else move(self.exact))


def kernel_scale(layer: Any, kernel: np.ndarray) -> np.ndarray:
    """Return the real value of one step of each output channel's weights: 127 steps reach its largest."""
    axes = (0, 1) if graph.depthwise(layer) else tuple(range(kernel.ndim - 1))
    scale = np.abs(kernel).max(axis=axes, keepdims=True).astype(np.float32) / np.float32(127)
    return np.where(scale < SMALLEST_SCALE, np.float32(1), scale)


def lifted(layer: Any, kernel: np.ndarray, bias: np.ndarray, input_scale: np.float32) -> np.ndarray:
    """Give a dead channel one weight just large enough for its bias: see tflite_graph.lift_dead_channels."""
    least = 127 * np.abs(bias) / (2**30 * float(input_scale))
    axes = (0, 1) if graph.depthwise(layer) else tuple(range(kernel.ndim - 1))
    dead = np.abs(kernel).max(axis=axes).reshape(-1) < least
    if not dead.any():
        return kernel
    kernel = kernel.copy()
    first = kernel[0, 0].reshape(-1) if graph.depthwise(layer) else kernel.reshape(-1, kernel.shape[-1])[0]
    first[dead] = least[dead]  # a view of the kernel
    return kernel


def round_kernel(layer: Any, kernel: np.ndarray) -> np.ndarray:
    """Round a kernel to 8 bits as both converters do."""
    scale = kernel_scale(layer, kernel)
    rounded: np.ndarray = (np.rint(kernel / scale) * scale).astype(np.float32)
    return rounded


def round_real(x: Any, span: Range) -> Any:
    """Store real numbers as levels and read them back."""
    return store(x / span.scale, span, 0).real()


def store(steps: Any, span: Range, point: int, bounds: tuple[int, int] = (0, STEPS)) -> Levels:
    """Round real numbers in units of a range's steps to its levels."""
    import tensorflow as tf

    low, high = (float(bound - span.zero) for bound in bounds)
    return Levels(tf.clip_by_value(tf.round(steps), low, high), span.scale, point)


def quantize(x: Any, span: Range, point: int) -> Levels:
    """Store real numbers: QUANTIZE multiplies by the scale's inverse."""
    return store(x * (np.float32(1) / span.scale), span, point)


def convolve(
    layer: Any, weights: tuple[np.ndarray, np.ndarray], x: Levels, span: Range, point: int, bounds: tuple[int, int]
) -> Levels:
    """Convolve, or multiply matrices: the integer sum with its integer bias, times one factor a channel."""
    kernel, bias = weights
    kernel = lifted(layer, kernel, bias, x.scale)
    step = kernel_scale(layer, kernel)
    whole = np.rint(kernel / step).astype(np.float32)
    unit = x.scale * step.reshape(-1)
    limit = 2.0**31 - 1
    whole_bias = np.clip(np.rint(bias / unit), -limit, limit).astype(np.float32)
    factor = (unit / span.scale).astype(np.float32)
    return store(graph.linear(layer, x.values, whole, whole_bias) * factor, span, point, bounds)


def in_float(layer: Any, kernel: np.ndarray, bias: np.ndarray, x: Any) -> Any:
    """Convolve, or multiply matrices, in float: fused multiply-adds from the bias on, one weight after another.

    XNNPACK's gemm and igemm go through rows, columns and channels of a kernel, its dwconv through columns and rows.
    Another order would differ in the last bit, and the network behind make other levels of that.
    """
    import tensorflow as tf

    pieces = _pieces(layer, kernel, tf.cast(x, tf.float64))
    if pieces is None:
        return graph.linear(layer, x, kernel, bias)
    answer: Any = bias
    for values, weights in pieces:
        one_by_one = _add_channels if weights.ndim == 2 else _add
        answer = one_by_one(answer, values, weights.astype(np.float64))
    return answer


def _add(answer: Any, values: Any, weights: Any) -> Any:
    """Add one product: in float64 it is exact, so the sum is rounded once."""
    import tensorflow as tf

    return tf.cast(values * weights + tf.cast(answer, tf.float64), tf.float32)


def _add_channels(answer: Any, values: Any, weights: np.ndarray) -> Any:
    """Add the product of each channel in turn: a loop in the graph, as hundreds of additions take seconds to trace."""
    import tensorflow as tf

    rows, columns = tf.transpose(values, (len(values.shape) - 1, *range(len(values.shape) - 1))), tf.constant(weights)

    def channel(k: Any, total: Any) -> tuple[Any, Any]:
        return k + 1, _add(total, rows[k][..., tf.newaxis], columns[k])

    begin = tf.zeros_like(values[..., :1], tf.float32) + answer
    return tf.while_loop(lambda k, _: k < len(weights), channel, (0, begin), parallel_iterations=1)[1]


def _pieces(layer: Any, kernel: np.ndarray, x: Any) -> list[tuple[Any, np.ndarray]] | None:
    """List what each answer of a layer is the sum of, in order; None for a layer that XNNPACK computes otherwise.

    A kernel's place is one product, channel by channel, where the layer is depthwise, or else as many as there are
    channels, with weights [channels, answers].
    """
    import keras
    import tensorflow as tf

    if isinstance(layer, keras.layers.Dense):
        return [(x, kernel)]
    if getattr(layer, "groups", 1) > 1 or getattr(layer, "depth_multiplier", 1) > 1 or layer.dilation_rate != (1, 1):
        return None
    spans = []  # of the rows, and of the columns
    for size, taps, stride in zip(x.shape[1:3], kernel.shape[:2], layer.strides, strict=True):
        answers = -(-size // stride) if layer.padding == "same" else (size - taps) // stride + 1
        missing = max((answers - 1) * stride + taps - size, 0)
        spans.append((missing, [slice(i, i + (answers - 1) * stride + 1, stride) for i in range(taps)]))
    (above, rows), (left, columns) = spans
    x = tf.pad(x, ((0, 0), (above // 2, above - above // 2), (left // 2, left - left // 2), (0, 0)))
    if graph.depthwise(layer):
        places = [(row, column) for column in range(len(columns)) for row in range(len(rows))]
        return [(x[:, rows[i], columns[j]], kernel[i, j, :, 0]) for i, j in places]
    places = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    return [(x[:, rows[i], columns[j]], kernel[i, j]) for i, j in places]


def classify(layer: Any, weights: tuple[np.ndarray, np.ndarray], x: Any) -> Any:
    """Compute a classifier from real numbers: each picture's row is quantized by its own extremes, the answer is float.

    Source: XNNPACK's qd8 (xnn_qd8_asymmetric_quantization_params) and qd8-f32-qc8w.
    """
    import tensorflow as tf

    kernel, bias = weights
    axes = tuple(range(1, len(x.shape)))
    low = tf.minimum(tf.reduce_min(x, axes, keepdims=True), 0.0)
    high = tf.maximum(tf.reduce_max(x, axes, keepdims=True), 0.0)
    steps = tf.where(high == low, 1.0, STEPS / (high - low))  # in one real unit
    below, above = low * steps, high * steps
    zero = tf.where((below - 128.0) + (above + 127.0) > 0, -128.0 - below, 127.0 - above)
    zero = tf.round(tf.clip_by_value(zero, -128.0, 127.0))
    values = tf.clip_by_value(tf.round(x * steps), -128.0 - zero, 127.0 - zero)
    step = kernel_scale(layer, kernel)
    total = graph.linear(layer, values, np.rint(kernel / step).astype(np.float32), np.float32(0))
    return total * (1.0 / steps) * step.reshape(-1) + bias


def hard_swish(x: Any) -> Any:
    """Compute a hard swish as XNNPACK does in float: x times a gate of one fused multiply-add."""
    import tensorflow as tf

    gate = tf.cast(tf.cast(x, tf.float64) * np.float64(np.float32(1 / 6)) + 0.5, tf.float32)
    return x * tf.clip_by_value(gate, 0.0, 1.0)


def add(a: Levels, b: Levels, span: Range, point: int) -> Levels:
    """Add two tensors of integers."""
    import tensorflow as tf

    factors = [float(np.float32(one.scale / span.scale)) for one in (a, b)]
    shift = 20 - int(np.floor(np.log2(max(factors))))
    multipliers = [int(np.rint(factor * 2.0**shift)) for factor in factors]
    total = sum(tf.cast(one.values, tf.int32) * multiplier for one, multiplier in zip((a, b), multipliers, strict=True))
    rounded = tf.bitwise.right_shift(total + (1 << (shift - 1)), shift)
    return store(tf.cast(rounded, tf.float32), span, point)


def multiply(a: Levels, b: Levels, span: Range, point: int) -> Levels:
    """Multiply two tensors of integers."""
    factor = np.float32(a.scale * b.scale / span.scale)
    return store(a.values * b.values * factor, span, point)


def mean(x: Levels, zero: int, span: Range, point: int, *, keepdims: bool) -> Levels:
    """Average over height and width: the sum of int8 values, zero level and all, times one factor, plus one number."""
    import tensorflow as tf

    pixels = int(x.values.shape[1]) * int(x.values.shape[2])
    factor = np.float32(x.scale / span.scale / np.float32(pixels))
    own_zero = np.float32(zero - 128)
    total = tf.reduce_sum(x.values, (1, 2), keepdims=keepdims) + own_zero * np.float32(pixels)
    ahead = np.float32(own_zero * np.float32(pixels) * factor)
    its_zero = np.float32(span.zero - 128)
    return store(tf.round(total * factor + np.float32(its_zero - ahead)) - its_zero, span, point)


def mean_in_float(x: Any, *, keepdims: bool) -> Any:
    """Average over height and width in float, pixel after pixel, as XNNPACK does."""
    import tensorflow as tf

    height, width, channels = (int(size) for size in x.shape[1:])
    pixels = tf.reshape(x, (-1, height * width, channels))
    total = tf.cumsum(pixels, axis=1)[:, -1] * np.float32(1 / (height * width))
    return tf.reshape(total, (-1, 1, 1, channels)) if keepdims else total
