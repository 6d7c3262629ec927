"""A Keras network made ready to be quantized: folded, its points found, its ranges seen; and its way into files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from converters import tflite_classifier, tflite_graph, to_onnx, to_tflite
from converters.errors import ConverterError
from converters.int8 import copies, graph, points
from converters.int8.equalize import equalize
from converters.int8.fold import fold, takes_shift
from converters.int8.ranges import aligned, allowed
from converters.int8.simulator import Simulator, State, weights_of, write_weights

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class Prepared:
    """A folded network in its simulator.

    Attributes:
        simulator: of the network; its weights change from state to state.
        start: float weights, and the ranges that calibration alone gives.
    """

    simulator: Simulator
    start: State

    @property
    def scale(self) -> float:
        """The folded network reads level * scale + offset."""
        return float(self.simulator.scale)

    @property
    def offset(self) -> float:
        """See scale: the level nearest to zero is zero exactly."""
        return -self.simulator.zero * float(self.simulator.scale)


@dataclass(frozen=True, slots=True)
class Copied:
    """A network with copies of channels.

    Attributes:
        prepared: in its simulator.
        state: float weights, and the ranges that it had without.
        count: of copies.
        wider: layers have more channels than they had.
    """

    prepared: Prepared
    state: State
    count: int
    wider: bool


def prepare(
    core: keras.Model,
    images: np.ndarray,
    *,
    scale: float,
    offset: float,
    progress: Callable[[int], None] | None = None,
) -> Prepared | None:
    """Fold a network, find what a file of it stores as integers, and see what these tensors hold.

    Args:
        core: [n, height, width, 3] float -> [n, classes] probabilities.
        images: calibration images, uint8 [n, height, width, 3].
        scale: x = image * scale + offset.
        offset: see scale.
        progress: called with the number of calibration images done.

    Returns:
        None where there is nothing to correct: no plain layer with weights whose answer is stored; or where a layer
        gives several tensors, as a split does.
    """
    steps = graph.nodes(core)
    if not any(graph.weighted(node.operation) for node in steps):
        return None  # a SavedModel: Keras sees one layer, and cannot copy it
    if any(len(node.outputs) > 1 for node in steps):
        return None
    zero = tflite_graph.zero_point(scale, offset)
    folded = fold(core, offset + zero * scale if takes_shift(core) else 0.0)
    found, classifier = _points(folded, to_tflite.trace(folded), images, scale, zero)
    simulator = Simulator(folded, found, scale, zero, classifier)
    if not simulator.fused:
        return None
    return Prepared(simulator, _state(simulator, images, progress))


def equalized(prepared: Prepared, images: np.ndarray) -> State | None:
    """Return the start with its channels equalized and its ranges seen again; None where there is no pair for it."""
    simulator = prepared.simulator
    write_weights(simulator.core, prepared.start.weights)
    if not equalize(simulator.core, simulator.read(images[: points.PROBES * 16])):
        return None
    return _state(simulator, images, None)


def copied(prepared: Prepared, state: State, noise: Mapping[int, np.ndarray], *, wider: bool) -> Copied | None:
    """Put copies of the costliest channels into idle ones; None where there is none.

    Args:
        prepared: the network; its weights are written.
        state: float weights, and ranges.
        noise: that rounding a channel of a point adds to the logits, [channels] by the position of the point.
        wider: layers answer as many channels as kernels compute at a time.
    """
    simulator = prepared.simulator
    write_weights(simulator.core, state.weights)
    filters = copies.widths(simulator) if wider else {}
    if filters:
        wide = copies.widened(simulator.core, filters)
        simulator = Simulator(wide, simulator.points, prepared.scale, simulator.zero, simulator.classifier)
    weights, count = copies.copied(simulator, replace(state, weights=weights_of(simulator.core)), noise)
    if not count:
        return None
    start = replace(prepared.start, weights=weights)
    return Copied(Prepared(simulator, start), replace(state, weights=weights), count, bool(filters))


def load(prepared: Prepared, state: State) -> None:
    """Give the folded network the weights of a state."""
    write_weights(prepared.simulator.core, state.weights)


class Writer:
    """Writes states of one network that differ in ranges and float nodes alone: the graph is traced once."""

    def __init__(self, prepared: Prepared, state: State, images: np.ndarray) -> None:
        """Trace the network with the weights of a state."""
        self._prepared, self._images = prepared, images
        simulator = prepared.simulator
        write_weights(simulator.core, state.weights)
        self._traced = to_tflite.trace(simulator.core)
        x = simulator.read(images[: points.PROBES])
        self._names = points.match(simulator.core, x, points.tflite_values(self._traced, x))

    def tflite(self, state: State) -> to_tflite.TfliteModel:
        """Write a state as a TFLite file, with exactly its ranges; its weights must be those traced.

        Raises:
            ConverterError: the network holds an operator that cannot be quantized.
        """
        simulator = self._prepared.simulator
        return to_tflite.quantize(
            self._traced,
            [self._images],
            scale=self._prepared.scale,
            offset=self._prepared.offset,
            decided=_decided(simulator, state, self._names),
            keep_float=_kept(state, self._names),
        )


def onnx(prepared: Prepared, state: State, images: np.ndarray, metadata: dict[str, str]) -> to_onnx.OnnxModel:
    """Write a state as an ONNX file, with exactly its ranges.

    Raises:
        ConverterError: a layer cannot be expressed.
    """
    simulator = prepared.simulator
    write_weights(simulator.core, state.weights)
    probes = images[: points.PROBES]
    values = to_onnx.float_values(simulator.core, probes, scale=prepared.scale, offset=prepared.offset)
    names = points.match(simulator.core, simulator.read(probes), values)
    return to_onnx.quantize(
        simulator.core,
        [images],
        scale=prepared.scale,
        offset=prepared.offset,
        decided=_decided(simulator, state, names),
        keep_float=_kept(state, names),
        metadata=metadata,
    )


def _points(
    core: keras.Model, traced: bytes, images: np.ndarray, scale: float, zero: int
) -> tuple[list[int], int | None]:
    """Find the points of a network, and its classifier."""
    x = (images[: points.PROBES].astype(np.float32) - np.float32(zero)) * np.float32(scale)
    steps = graph.nodes(core)
    found = points.match(core, x, points.tflite_values(traced, x))
    *_, logits = tflite_classifier.float_tensors(traced) or ("",)
    classifier = next((point for point, names in found.items() if logits in names), None)
    return [p for p in found if graph.activation(steps[p].operation) not in ("softmax", "sigmoid")], classifier


def _state(simulator: Simulator, images: np.ndarray, progress: Callable[[int], None] | None) -> State:
    seen = simulator.seen(images, progress)
    if not all(np.isfinite(extremes).all() for extremes in seen.values()):
        raise ConverterError("the network answers NaN or infinity inside; are its weights whole?")
    spans = {
        point: allowed(simulator.kinds[point], float(extremes[:, 0].min()), float(extremes[:, 1].max()))
        for point, extremes in seen.items()
    }
    return State(weights_of(simulator.core), aligned(simulator.core, simulator.kinds, spans))


def _decided(simulator: Simulator, state: State, names: points.Names) -> dict[str, tuple[float, float]]:
    spans = {point: (span.low, span.high) for point, span in state.ranges.items()}
    for position in names:  # probabilities, which stay float: known without running an image
        if graph.activation(simulator.steps[position].operation) in ("softmax", "sigmoid"):
            spans.setdefault(position, (0.0, 1.0))
    return {name: span for point, span in spans.items() for name in names.get(point, ())}


def _kept(state: State, names: points.Names) -> list[str]:
    return [name for position in sorted(state.kept_float) for name in names.get(position, ())]
