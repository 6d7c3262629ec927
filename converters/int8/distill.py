"""Distillation without labels: weights, biases and ranges tuned end to end on the float network's own answers.

The quantized network is trained, rounding and all, to answer what the float network answers. Gradients pass straight
through the rounding (Bengio et al. 2013, arXiv 1308.3432); ranges learn as in LSQ+ (Bhalgat et al. 2020, arXiv
2004.09576). What keeps a few hundred pictures from being learnt by heart: crops, flips and mixup (Zhang et al. 2017,
arXiv 1710.09412) of them, each answered afresh by the float network, and small steps.

Every latent moves in units of its own: weights in steps of their grid, biases in deviations of their channel's output,
the ends of a range in parts of themselves. One learning rate then fits all layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from converters.int8 import arithmetic, graph
from converters.int8.arithmetic import STEPS, Range
from converters.int8.ranges import NUDGE, Kind, aligned, allowed
from converters.int8.simulator import Simulator, State, Weights, write_weights

BATCH = 16
WEIGHT_RATE = 0.005
BIAS_RATE = 0.001
RANGE_RATE = 0.003
SMALLEST_CROP = 0.7
MIXED = 0.6
"""Share of the pictures of a batch that are mixed with another."""

MIXUP_ALPHA = 0.4
DEAD = 1e-6
"""Of a layer's largest weight; a channel below it answers nothing but its bias."""

TINY = 1e-30


def distill(
    simulator: Simulator,
    start: State,
    float_weights: Weights,
    images: np.ndarray,
    *,
    steps: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> State:
    """Return a state that answers more like the float network.

    Args:
        simulator: of the network; its weights are written.
        start: where to begin.
        float_weights: of the network that gives the answers.
        images: uint8 [n, height, width, 3], 50 at least.
        steps: of BATCH images each.
        seed: of the order, the crops and the mixtures.
        progress: called with the number of steps done, and of all.
    """
    import keras
    import tensorflow as tf

    write_weights(simulator.core, float_weights)
    student = _Student(simulator, start, images)
    groups = student.groups()
    optimizers = []
    for variables, rate in groups:
        optimizers.append(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, max(steps, 1))))
        optimizers[-1].build(variables)
    variables = [variable for group, _ in groups for variable in group]

    def gradients(x: Any) -> Any:
        wanted = graph.run(simulator.core, x, lambda node, *args, **kwargs: node.operation(*args, **kwargs))
        with tf.GradientTape() as tape:
            loss = _loss(wanted, student.answer(x))
        return tape.gradient(loss, variables, unconnected_gradients="zero")

    compiled = tf.function(gradients, autograph=False)
    rng = np.random.default_rng(seed)
    x = simulator.read(images)
    for step in range(steps):
        slopes = compiled(_pictures(x, rng))
        first = 0
        for optimizer, (group, _) in zip(optimizers, groups, strict=True):
            optimizer.apply(slopes[first : first + len(group)], group)
            first += len(group)
        if progress:
            progress(step + 1, steps)
    return student.state()


def _loss(wanted: Any, answer: Any) -> Any:
    """Add the divergence of the answers and the relative squared error of their logits."""
    import tensorflow as tf

    logs = [tf.math.log(tf.maximum(p, TINY)) for p in (wanted, answer)]
    divergence = tf.reduce_mean(tf.reduce_sum(wanted * (logs[0] - logs[1]), axis=1))
    true, rough = (log - tf.reduce_mean(log, axis=1, keepdims=True) for log in logs)
    return divergence + tf.reduce_sum(tf.square(true - rough)) / tf.reduce_sum(tf.square(true))


def _pictures(x: np.ndarray, rng: np.random.Generator) -> Any:
    """Draw a batch: cropped, flipped, mixed."""
    import tensorflow as tf

    batch = x[rng.choice(len(x), BATCH, replace=len(x) < BATCH)]
    side = rng.uniform(SMALLEST_CROP, 1, BATCH)
    top, left = rng.uniform(0, 1, (2, BATCH)) * (1 - side)
    boxes = np.stack([top, left, top + side, left + side], axis=1).astype(np.float32)
    boxes[rng.random(BATCH) < 0.3] = (0, 0, 1, 1)
    flipped = rng.random(BATCH) < 0.5
    boxes[flipped] = boxes[flipped][:, [0, 3, 2, 1]]
    crops = tf.image.crop_and_resize(batch, boxes, np.arange(BATCH), batch.shape[1:3])
    share = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, (BATCH, 1, 1, 1)).astype(np.float32)
    share = np.maximum(share, 1 - share)
    share[rng.random(BATCH) >= MIXED] = 1
    return crops * share + tf.gather(crops, rng.permutation(BATCH)) * (1 - share)


class _Student:
    """The quantized network in real numbers, with everything that can be learnt as variables that start at zero."""

    def __init__(self, simulator: Simulator, start: State, images: np.ndarray) -> None:
        import tensorflow as tf

        self._simulator, self._start = simulator, start
        quiet = simulator.float_points(start.kept_float)
        self._rounded = [point for point in simulator.points if point not in quiet]
        layers = {name: simulator.core.get_layer(name) for name in start.weights}
        self._float_layers = {simulator.steps[i].operation.name for i in start.kept_float}
        self._steps = {name: _live_steps(layers[name], w) for name, (w, _) in start.weights.items()}
        self._deviations = _deviations(simulator, simulator.read(images[:BATCH]))
        self._kernels = {name: tf.Variable(np.zeros_like(w)) for name, (w, _) in start.weights.items()}
        self._biases = {name: tf.Variable(np.zeros_like(b)) for name, (_, b) in start.weights.items()}
        tuned = [point for point in self._rounded if simulator.kinds[point] in ("free", "swish")]
        self._ends = {point: tf.Variable(np.zeros(2, np.float32)) for point in tuned}

    def groups(self) -> list[tuple[list[Any], float]]:
        """List what is learnt, with its learning rate: kernels, biases, ends of ranges."""
        kernels, biases, ends = (list(group.values()) for group in (self._kernels, self._biases, self._ends))
        return [(kernels, WEIGHT_RATE), (biases, BIAS_RATE), (ends, RANGE_RATE)]

    def answer(self, x: Any) -> Any:
        """Answer float images with probabilities."""

        def call(node: Any, *args: Any, **kwargs: Any) -> Any:
            position, layer = self._simulator.position[id(node)], node.operation
            y = graph.linear(layer, args[0], *self._weights(layer)) if graph.weighted(layer) else layer(*args, **kwargs)
            return _rounded(y, *self._grid(position)) if position in self._rounded else y

        return graph.run(self._simulator.core, x, call)

    def state(self) -> State:
        """Return what was learnt."""
        weights = {}
        for name in self._start.weights:
            layer = self._simulator.core.get_layer(name)
            kernel, bias = (np.asarray(value) for value in self._moved(layer))
            in_float = name in self._float_layers
            weights[name] = (kernel if in_float else arithmetic.round_kernel(layer, kernel), bias)
        ranges = dict(self._start.ranges)
        for point, ends in self._ends.items():
            low, high = np.exp(np.asarray(ends, np.float64))
            span, kind = ranges[point], self._simulator.kinds[point]
            ranges[point] = allowed(kind, span.low * low, span.high * high)
        simulator = self._simulator
        return State(weights, aligned(simulator.core, simulator.kinds, ranges), self._start.kept_float)

    def _moved(self, layer: Any) -> tuple[Any, Any]:
        kernel, bias = self._start.weights[layer.name]
        return (
            kernel + self._steps[layer.name] * self._kernels[layer.name],
            bias + self._deviations[layer.name] * self._biases[layer.name],
        )

    def _weights(self, layer: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        kernel, bias = self._moved(layer)
        if layer.name in self._float_layers:
            return kernel, bias
        axes = (0, 1) if graph.depthwise(layer) else tuple(range(kernel.shape.rank - 1))
        scale = tf.stop_gradient(tf.reduce_max(tf.abs(kernel), axes, keepdims=True)) / 127
        scale = tf.where(scale == 0, tf.ones_like(scale), scale)
        return _straight(kernel / scale) * scale, bias

    def _grid(self, point: int) -> tuple[Any, Any]:
        """Return scale and zero of a point as they are learnt."""
        import tensorflow as tf

        span: Range = self._start.ranges[point]
        kind: Kind = self._simulator.kinds[point]
        if point not in self._ends:
            return span.scale, float(span.zero)
        low, high = tf.unstack(tf.exp(self._ends[point]) * np.array([span.low, span.high], np.float32))
        if kind == "swish":
            zero = tf.maximum(_straight(3 * STEPS / (3 + high) - 0.5 + NUDGE), 1.0)  # rounded down, as allowed() does
            return 3 / zero, zero
        scale = (high - low) / STEPS
        return scale, _straight(-low / scale)


def _live_steps(layer: Any, kernel: np.ndarray) -> np.ndarray:
    """Return the unit in which each channel's weights move: a step of its grid; a dead channel stays dead."""
    scale = arithmetic.kernel_scale(layer, kernel)
    axes = (0, 1) if graph.depthwise(layer) else tuple(range(kernel.ndim - 1))
    alive = np.abs(kernel).max(axis=axes, keepdims=True) > DEAD * np.abs(kernel).max()
    return np.where(alive, scale, np.float32(0))


def _rounded(x: Any, scale: Any, zero: Any) -> Any:
    import tensorflow as tf

    return (tf.clip_by_value(_straight(x / scale) + zero, 0.0, float(STEPS)) - zero) * scale


def _straight(x: Any) -> Any:
    """Round; the gradient passes straight through."""
    import tensorflow as tf

    return x + tf.stop_gradient(tf.round(x) - x)


def _deviations(simulator: Simulator, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the standard deviation of each weighted layer's outputs, a channel each."""
    import keras

    found: dict[str, np.ndarray] = {}

    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        y = node.operation(*args, **kwargs)
        if graph.weighted(node.operation):
            found[node.operation.name] = np.asarray(keras.ops.std(y, axis=tuple(range(len(y.shape) - 1)))) + 1e-6
        return y

    graph.run(simulator.core, keras.ops.convert_to_tensor(x), call)
    return found
