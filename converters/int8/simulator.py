"""The simulator: a folded Keras network that answers what its int8 file will answer.

Weights are rounded a channel (symmetric, 127 steps a side), activations a tensor (asymmetric, 255 steps), at the points
where the file stores integers. Everything that is decided about a network's quantization is decided here, in
milliseconds an image, and proven on the file.

Integers stay integers from point to point, computed as XNNPACK computes them, and floats are added up in its order: a
deep network amplifies one level's difference in an early layer into many in the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.int8 import arithmetic, graph
from converters.int8.arithmetic import INPUT, Levels, Range
from converters.int8.kernels import always_float, dynamic, fused
from converters.int8.ranges import Kind, kinds

if TYPE_CHECKING:
    import keras

VALUES = 15_000_000
"""Of a batch's largest tensor: 60 MB, several times over."""

MOST_IMAGES = 25
"""In a batch."""

Weights = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Name of a weighted layer -> its kernel and bias, float32."""


@dataclass(frozen=True, slots=True)
class State:
    """One way to quantize a network.

    Attributes:
        weights: of each weighted layer.
        ranges: of each point, by its position in graph.nodes.
        kept_float: positions of the nodes that compute in float.
    """

    weights: Weights
    ranges: Mapping[int, Range]
    kept_float: frozenset[int] = frozenset()


def weights_of(core: keras.Model) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read kernel and bias of each weighted layer of a folded network."""
    layers = {node.operation.name: node.operation for node in graph.nodes(core) if graph.weighted(node.operation)}
    return {name: (np.asarray(layer.kernel), np.asarray(layer.bias)) for name, layer in layers.items()}


def write_weights(core: keras.Model, weights: Weights) -> None:
    """Put weights into a folded network, in place."""
    for name, pair in weights.items():
        core.get_layer(name).set_weights(list(pair))


@dataclass(frozen=True, slots=True)
class _Floats:
    """How islands compute.

    Attributes:
        errors: by which share of itself what an exit answers is off, by its position.
        in_order: sums are the file's, addend by addend.
    """

    errors: Mapping[int, Any]
    in_order: bool


_AS_THE_FILE = _Floats(MappingProxyType({}), in_order=True)


class Simulator:
    """One folded network that takes on one State after another.

    Attributes:
        core: the folded network; its weights are those of the state last loaded.
        points: positions of the nodes whose outputs are stored as integers, where they do not stay float.
        kinds: of each point.
        fused: what a file computes in one operator, by the position of the weighted layer.
        scale: the network reads (level - zero) * scale.
        zero: see scale.
        classifier: position of the layer that answers logits in float, with int8 weights; None where there is none.
    """

    def __init__(
        self, core: keras.Model, points: Iterable[int], scale: float, zero: int, classifier: int | None = None
    ) -> None:
        """Prepare to run a folded network with integers at these points."""
        self.core, self.scale, self.zero, self.classifier = core, np.float32(scale), zero, classifier
        self.points = tuple(sorted(points))
        self.kinds: dict[int, Kind] = kinds(core, self.points)
        self.steps = graph.nodes(core)
        self.position = {id(node): i for i, node in enumerate(self.steps)}
        self.fused = fused(core, frozenset(self.points))
        self._passed = {position: one.point for one in self.fused.values() for position in one.passed}
        self._dynamic = dynamic(core, classifier)
        largest = max(int(np.prod(step.outputs[0].shape[1:])) for step in self.steps)
        self._batch = max(1, min(MOST_IMAGES, VALUES // largest))
        self._answer: Callable[..., Any] | None = None

    def float_points(self, kept_float: frozenset[int] = frozenset()) -> frozenset[int]:
        """Name the points that stay float: answered in float, and read by operators that read float alone."""
        found = graph.readers(self.core)
        chosen = kept_float | self._dynamic

        def in_float(node: Any) -> bool:
            return self.position[id(node)] in chosen or always_float(node)

        def stays(point: int) -> bool:
            node = self.steps[point]
            return point == self.classifier or all(map(in_float, (node, *found.get(id(node.outputs[0]), []))))

        return frozenset(filter(stays, self.points))

    def exits(self, kept_float: frozenset[int]) -> frozenset[int]:
        """Name the points where islands end: stored as integers, of what an island computes there or just before."""
        stored = frozenset(self.points) - self.float_points(kept_float)
        producer = graph.producers(self.core)

        def reads_float(node: Any) -> bool:
            before = {producer.get(id(tensor)) for tensor in node.input_tensors}
            return always_float(node) and bool(before & (kept_float - stored))

        return frozenset(point for point in stored if point in kept_float or reads_float(self.steps[point]))

    def load(self, state: State, in_order: bool = True) -> None:
        """Take on a state: its weights, ranges and what it keeps in float.

        in_order: islands add up floats as the file does; else in any order, which is compiled in a fifth of the time.
        """
        import tensorflow as tf

        write_weights(self.core, state.weights)
        pixels = tf.TensorSpec((None, *self.core.inputs[0].shape[1:]), tf.uint8)
        exits = self.exits(state.kept_float)

        def answer(images: Any, errors: Any) -> Any:
            return self._run(images, state, _Floats({at: errors[at] for at in exits}, in_order))

        errors = tf.TensorSpec((len(self.steps),), tf.float32)
        self._answer = tf.function(answer, autograph=False).get_concrete_function(pixels, errors)

    def read(self, images: np.ndarray) -> np.ndarray:
        """Turn uint8 images into what the folded network reads: float32 [n, height, width, 3]."""
        return (images.astype(np.float32) - np.float32(self.zero)) * self.scale

    def scores(self, images: np.ndarray, float_error: float = 0.0, at: int | None = None) -> np.ndarray:
        """Answer uint8 images [n, height, width, 3] with probabilities [n, classes], as the file will.

        Args:
            images: to answer.
            float_error: by which share of themselves the answers of islands of float are off, before they are rounded;
                runtimes differ by as much, as each adds up in its own order.
            at: position of the one exit that is off; None: all are.
        """
        import tensorflow as tf

        assert self._answer is not None, "load a state first"
        errors = np.full(len(self.steps), float_error, np.float32)
        if at is not None:
            errors[np.arange(len(errors)) != at] = 0
        answers = []
        for start in range(0, len(images), self._batch):
            batch = tf.constant(images[start : start + self._batch])
            answers.append(np.asarray(self._answer(batch, tf.constant(errors))))
        return np.concatenate(answers)

    def stored(self, images: np.ndarray, state: State) -> dict[int, np.ndarray]:
        """Answer uint8 images with what each point holds in a state: levels less the zero level, as the file's."""
        held = self._held(images, state)
        return {point: np.asarray(y.values) for point, y in held.items() if isinstance(y, Levels)}

    def answered(self, images: np.ndarray, state: State) -> dict[int, np.ndarray]:
        """Answer uint8 images with what each point holds in a state, in real numbers."""
        held = self._held(images, state)
        return {point: np.asarray(y.real() if isinstance(y, Levels) else y) for point, y in held.items()}

    def _held(self, images: np.ndarray, state: State) -> dict[int, Any]:
        write_weights(self.core, state.weights)
        held: dict[int, Any] = {}
        self._run(images, state, held=held)
        return held

    def stored_values(self) -> int:
        """Count the integers that the network stores for one image."""
        stored = frozenset(self.points) - self.float_points()
        return sum(int(np.prod(self.steps[point].outputs[0].shape[1:])) for point in stored)

    def seen(self, images: np.ndarray, progress: Callable[[int], None] | None = None) -> dict[int, np.ndarray]:
        """Find the smallest and largest value of each point in float on each of uint8 images: [n, 2]."""
        import tensorflow as tf

        def extremes(batch: Any) -> Any:
            found = {}

            def call(node: Any, *args: Any, **kwargs: Any) -> Any:
                y = node.operation(*args, **kwargs)
                axes = tuple(range(1, len(y.shape)))
                found[self.position[id(node)]] = tf.stack([tf.reduce_min(y, axes), tf.reduce_max(y, axes)], axis=1)
                return y

            graph.run(self.core, batch, call)
            return tf.stack([found[point] for point in self.points])

        reads = tf.TensorSpec((None, *self.core.inputs[0].shape[1:]), tf.float32)
        compiled = tf.function(extremes, autograph=False).get_concrete_function(reads)
        parts = []
        for start in range(0, len(images), self._batch):
            parts.append(np.asarray(compiled(tf.constant(self.read(images[start : start + self._batch])))))
            if progress:
                progress(min(start + self._batch, len(images)))
        return dict(zip(self.points, np.concatenate(parts, axis=1), strict=True))

    def _run(
        self, images: Any, state: State, floats: _Floats = _AS_THE_FILE, held: dict[int, Any] | None = None
    ) -> Any:
        import tensorflow as tf

        rounded = frozenset(self.points) - self.float_points(state.kept_float)

        def call(node: Any, *args: Any, **kwargs: Any) -> Any:
            y = self._step(node, args, kwargs, state, rounded, floats)
            position = self.position[id(node)]
            if held is not None and position in state.ranges and not (isinstance(y, Levels) and y.point != position):
                held[position] = y
            return y

        levels = Levels(tf.cast(images, tf.float32) - float(self.zero), self.scale, INPUT)
        answer = graph.run(self.core, levels, call)
        return answer.real() if isinstance(answer, Levels) else answer

    def _step(self, node: Any, args: Any, kwargs: Any, state: State, rounded: frozenset[int], floats: _Floats) -> Any:
        """Compute one node: on integers where the file does, in real numbers elsewhere."""
        import keras

        position, layer = self.position[id(node)], node.operation
        levels = [arg for arg in keras.tree.flatten(args) if isinstance(arg, Levels)]
        if levels and self._passed.get(position) == levels[0].point:
            return levels[0]
        if levels and graph.moves_only(layer):
            moved = levels[0].moved(layer)
            return moved if position in state.kept_float | self._dynamic else replace(moved, exact=None)
        in_float = position in state.kept_float or position == self.classifier or always_float(node)
        if not in_float and levels and len(levels) == len(node.input_tensors):
            answer = self._on_integers(position, layer, levels, state, rounded)
            if answer is not None:
                return answer

        def read(value: Any) -> Any:
            if not isinstance(value, Levels):
                return value
            return value.unrounded() if in_float else value.real()

        args, kwargs = keras.tree.map_structure(read, (args, kwargs))
        if graph.weighted(layer) and position == self.classifier and position not in state.kept_float:
            y = arithmetic.classify(layer, state.weights[layer.name], args[0])
        elif graph.weighted(layer):
            kernel, bias = state.weights[layer.name]
            if position not in state.kept_float:
                y = graph.linear(layer, args[0], arithmetic.round_kernel(layer, kernel), bias)
            elif floats.in_order:
                y = arithmetic.in_float(layer, kernel, bias, args[0])
            else:
                y = graph.linear(layer, args[0], kernel, bias)
        elif graph.activation(layer) == "hard_swish":
            y = arithmetic.hard_swish(args[0])
        elif in_float and floats.in_order and isinstance(layer, keras.layers.GlobalAveragePooling2D):
            y = arithmetic.mean_in_float(args[0], keepdims=layer.keepdims)
        else:
            y = layer(*args, **kwargs)
        if position not in rounded:
            return y
        if position in floats.errors:
            y *= 1.0 + floats.errors[position]
        stored = arithmetic.quantize(y, state.ranges[position], position)
        return replace(stored, exact=y) if in_float else stored

    def _on_integers(
        self, position: int, layer: Any, levels: list[Levels], state: State, rounded: frozenset[int]
    ) -> Levels | None:
        """Compute a node of which the file has an int8 kernel; None where it has none."""
        import keras

        one = self.fused.get(position)
        if one is not None and one.point in rounded:
            kernel, bias = state.weights[layer.name]
            span = state.ranges[one.point]
            shifted = (kernel, bias + np.float32(one.shift))
            return arithmetic.convolve(layer, shifted, levels[0], span, one.point, one.bounds(span))
        if position not in rounded:
            return None
        span = state.ranges[position]
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            zero = self.zero if levels[0].point == INPUT else state.ranges[levels[0].point].zero
            return arithmetic.mean(levels[0], zero, span, position, keepdims=layer.keepdims)
        if len(levels) == 2 and type(layer).__name__ == "Add":
            return arithmetic.add(levels[0], levels[1], span, position)
        if len(levels) == 2 and type(layer).__name__ == "Multiply":
            return arithmetic.multiply(levels[0], levels[1], span, position)
        return None
