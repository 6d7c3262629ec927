"""Correction without training: weights rounded, and biases shifted, for what the network's own activations ask.

The float network and the quantized one run side by side, layer by layer. At each layer with weights, in order:

- compensate (where asked): the weights that come nearest to the float layer's answer from the *quantized* layer's
  input, by least squares that pull towards the float weights;
- round: to the nearest step, or by GPTQ;
- bias correction: the mean difference of the two outputs, channel by channel, goes into the bias (Nagel et al. 2019,
  arXiv 1906.04721, section 4.2, the empirical form).

Each layer is so corrected for what the layers before it have left. Both converters round the result to the same
integers, so it holds for TFLite and ONNX alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from converters.int8 import arithmetic, graph
from converters.int8.rounding import DAMPING, gptq, gptq_depthwise
from converters.int8.simulator import Simulator, State, weights_of, write_weights

ENOUGH_IMAGES = 24
"""To compare methods by. All are in memory at once, twice. V1-0.25 gains 7.7 dB of SQNR from 12 of them."""

MOST_VALUES = 30_000_000
"""Of the largest tensor on all images that `most_images` lets into memory: 120 MB, a few times over."""

ROWS = 8_000
"""Samples of a layer's input that a covariance comes from."""

TAPS_ROWS = 2_000
"""The same, for the 9 or 25 taps of each channel of a depthwise layer."""

FEWEST_MAPS = 4
"""Images that they come from at least."""

PULL = 1.0
"""Towards the float weights, of the mean variance of the inputs. Less overfits: 0.01 loses 2 dB on V1-0.25."""

MOST_INPUTS = 5_000
"""Of an output, that GPTQ is for: it inverts a matrix of that size. 2304 take 1.5 s, 4608 take 9 s, the 30,976 behind a
Flatten of 44 x 44 x 16 would take an hour and tens of gigabytes."""

WELL_POSED = 4
"""Samples for each input that least squares needs, and GPTQ with its usual damping."""


@dataclass(frozen=True, slots=True)
class Method:
    """What is done to weights; biases are corrected in each.

    Attributes:
        rounding: to the nearest step, or by GPTQ.
        compensate: fit the weights to the quantized input first.
    """

    rounding: Literal["nearest", "GPTQ"]
    compensate: bool = False

    @property
    def name(self) -> str:
        """What a table calls it."""
        rounding = "GPTQ rounding, " if self.rounding == "GPTQ" else ""
        return f"{rounding}{'compensation, ' if self.compensate else ''}bias correction"


METHODS = (Method("nearest"), Method("GPTQ"), Method("GPTQ", compensate=True))


def most_images(simulator: Simulator) -> int:
    """Say how many images fit into memory at once: beyond ENOUGH_IMAGES each gains a little, where weights are few."""
    largest = max(int(np.prod(step.outputs[0].shape[1:])) for step in simulator.steps)
    return max(ENOUGH_IMAGES, MOST_VALUES // largest)


def spread(images: np.ndarray, most: int) -> np.ndarray:
    """Return images that lie evenly among all, at most so many: every second, every third..."""
    return images[:: -(-len(images) // most)]


def correct(
    simulator: Simulator,
    state: State,
    images: np.ndarray,
    method: Method,
    progress: Callable[[int, int], None] | None = None,
    most: int = ENOUGH_IMAGES,
) -> State:
    """Return a state whose weights are rounded and whose biases are corrected.

    Args:
        simulator: of the network; its weights are written.
        state: float weights, and the ranges and float nodes to correct for.
        images: uint8 [n, height, width, 3].
        method: what to do.
        progress: called with the number of layers done, and of all.
        most: images that are used at most; see spread.
    """
    import keras

    core = simulator.core
    write_weights(core, state.weights)
    x = keras.ops.convert_to_tensor(simulator.read(spread(images, most)))
    quiet = simulator.float_points(state.kept_float)
    corrected = dict(weights_of(core))
    done: list[str] = []

    def weigh(node: Any, x: _Both) -> _Both:
        position, layer = simulator.position[id(node)], node.operation
        kernel, bias = state.weights[layer.name]
        once = graph.called_once(core, layer)
        if position not in state.kept_float and not once:
            kernel = arithmetic.round_kernel(layer, kernel)
        elif position not in state.kept_float:
            kernel = _rounded(layer, kernel, np.asarray(x.true), np.asarray(x.rough), method)
        wanted = graph.linear(layer, x.true, *state.weights[layer.name])
        answer = graph.linear(layer, x.rough, kernel, bias)
        axes = tuple(range(len(wanted.shape) - 1))
        shift = np.asarray(keras.ops.mean(wanted, axes) - keras.ops.mean(answer, axes)) if once else np.float32(0)
        corrected[layer.name] = (kernel, bias + shift)
        done.append(layer.name)
        if progress:
            progress(len(done), len(state.weights))
        return _Both(wanted, answer + shift)

    def call(node: Any, *args: Any, **kwargs: Any) -> _Both:
        position, layer = simulator.position[id(node)], node.operation
        y = weigh(node, args[0]) if graph.weighted(layer) else _Both(*(layer(*a, **k) for a, k in _apart(args, kwargs)))
        if position in state.ranges and position not in quiet:
            return _Both(y.true, arithmetic.round_real(y.rough, state.ranges[position]))
        return y

    graph.run(core, _Both(x, x), call)
    return replace(state, weights=corrected)


@dataclass(frozen=True, slots=True)
class _Both:
    """A tensor of the float network, and of the quantized one."""

    true: Any
    rough: Any


def _apart(args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    """Yield an operation's arguments for the float network, then for the quantized one."""
    import keras

    for true in (True, False):
        yield keras.tree.map_structure(functools.partial(_one, true=true), (args, kwargs))


def _one(x: Any, *, true: bool) -> Any:
    if not isinstance(x, _Both):
        return x
    return x.true if true else x.rough


def _rounded(layer: Any, kernel: np.ndarray, true: np.ndarray, rough: np.ndarray, method: Method) -> np.ndarray:
    """Round a kernel for the inputs that its quantized layer has."""
    plain = getattr(layer, "groups", 1) == 1 and getattr(layer, "depth_multiplier", 1) == 1
    wide = not graph.depthwise(layer) and np.prod(kernel.shape[:-1]) > MOST_INPUTS
    if method.rounding == "nearest" or not plain or wide:
        return arithmetic.round_kernel(layer, kernel)
    if graph.depthwise(layer):
        return _rounded_depthwise(layer, kernel, rough)
    pixels = _samples(layer, kernel, rough)
    matrix = kernel.reshape(-1, kernel.shape[-1]).T
    mean = pixels.mean(axis=0)
    covariance = ((pixels - mean).T @ (pixels - mean) / len(pixels)).astype(np.float64)
    well_posed = len(pixels) >= WELL_POSED * len(covariance)
    if method.compensate and well_posed:
        missing = (_samples(layer, kernel, true) - pixels).T @ (pixels - mean) / len(pixels)
        pull = PULL * np.diag(covariance).mean() * np.eye(len(covariance))
        matrix = matrix + np.linalg.solve(covariance + pull, (matrix @ missing).T).T
    fitted = matrix.T.reshape(kernel.shape).astype(np.float32)
    scale = arithmetic.kernel_scale(layer, fitted)
    whole = gptq(matrix, covariance, scale.reshape(-1), DAMPING if well_posed else 10 * DAMPING)
    rounded: np.ndarray = (whole.T.reshape(kernel.shape) * scale).astype(np.float32)
    return rounded


def _rounded_depthwise(layer: Any, kernel: np.ndarray, rough: np.ndarray) -> np.ndarray:
    height, width, channels, _ = kernel.shape
    taps = height * width
    patches = _patches(layer, kernel, rough, TAPS_ROWS).reshape(-1, taps, channels)
    centred = np.ascontiguousarray((patches - patches.mean(axis=0)).transpose(2, 1, 0))  # BLAS wants it so
    covariances = centred @ centred.transpose(0, 2, 1) / len(patches)
    scale = arithmetic.kernel_scale(layer, kernel)
    whole = gptq_depthwise(kernel.reshape(taps, channels).T, covariances, scale.reshape(-1))
    rounded: np.ndarray = (whole.T.reshape(kernel.shape) * scale).astype(np.float32)
    return rounded


def _samples(layer: Any, kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return what the layer multiplies with its weights, [samples, inputs]; the same samples each time."""
    if kernel.ndim == 2:  # a dense layer, which may stand behind more axes than one
        rows = x.reshape(-1, x.shape[-1])
        return rows[:: -(-len(rows) // ROWS)]
    if kernel.shape[:2] == (1, 1):
        rows = x[:, :: layer.strides[0], :: layer.strides[1]].reshape(-1, x.shape[-1])
        return rows[:: -(-len(rows) // ROWS)]
    return _patches(layer, kernel, x).reshape(-1, int(np.prod(kernel.shape[:3])))


def _patches(layer: Any, kernel: np.ndarray, x: np.ndarray, most: int = ROWS) -> np.ndarray:
    """Return the pixels under a kernel, [samples, height * width * channels], of some images; at most `most`."""
    import tensorflow as tf

    pixels = x.shape[1] * x.shape[2] // (layer.strides[0] * layer.strides[1])
    maps = x[:: max(1, len(x) // max(FEWEST_MAPS, -(-most // pixels)))]
    patches = tf.image.extract_patches(
        maps,
        (1, *kernel.shape[:2], 1),
        (1, *layer.strides, 1),
        (1, *layer.dilation_rate, 1),
        layer.padding.upper(),
    )
    rows = np.asarray(patches).reshape(-1, patches.shape[-1])
    chosen: np.ndarray = rows[:: -(-len(rows) // most)]
    return chosen
