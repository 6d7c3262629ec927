"""Keras -> ONNX: float32 and float16, and from there int8, int16x8, and 8-bit weights alone.

Every file takes uint8 RGB NHWC [1, height, width, 3] named "image" and answers float32 "probabilities" [1, classes].

The direct writer knows the layers of image classifiers and takes a tenth of a second; what it does not know goes
through tf2onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from converters import (
    onnx_channels,
    onnx_fallback,
    onnx_graph,
    onnx_plan,
    onnx_quantize,
    onnx_ranges,
    onnx_rewrites,
    onnx_walk,
)
from converters.calibration import HEADROOM
from converters.errors import ConverterError
from converters.onnx_graph import Graph, Node
from converters.onnx_layers import UnsupportedLayerError

if TYPE_CHECKING:
    import keras

FloatPrecision = Literal["float32", "float16"]
IntegerPrecision = Literal["int8", "int16x8", "dynamic"]

# Smaller arrays (biases, bounds, shapes) are not worth a node each.
SMALLEST_PACKED = 256


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An ONNX file's bytes: uint8 [1, h, w, 3] in, float32 [1, classes] probabilities out.

    Attributes:
        onnx: the file.
        nodes: how many operators it has.
        fallback: which layer made tf2onnx write the graph; empty for the direct writer.
        kept_float: operators of an integer file that compute in float, such as "Conv x 1".
        ranges: smallest and largest value that each activation is given, in real units.
        calibration_images: how many images the ranges come from; 0 where all were decided.
    """

    onnx: bytes
    nodes: int
    fallback: str
    kept_float: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    calibration_images: int = 0


def convert(
    core: keras.Model,
    *,
    scale: float,
    offset: float,
    precision: FloatPrecision = "float32",
    metadata: Mapping[str, str] | None = None,
) -> OnnxModel:
    """Write a network as a float ONNX file.

    float16 stores the weights in half the space and computes in float32: ONNX Runtime has few half-precision kernels
    for a CPU, and it widens the weights once, when it opens the file, so that the file is as fast as float32.

    Args:
        core: [n, height, width, 3] float -> [n, classes] probabilities.
        scale: real value of one level of the input; x = image * scale + offset, exactly, at padded borders too.
        offset: real value of level 0.
        precision: of the weights.
        metadata: goes into the file's metadata_props.

    Raises:
        ConverterError: a layer cannot be expressed.
    """
    graph, fallback = _graph(core, scale, offset)
    if precision == "float16":
        _pack_halves(graph)
    return _model(graph, core, metadata, fallback)


def quantize(
    core: keras.Model,
    images: Iterable[np.ndarray],
    *,
    scale: float,
    offset: float,
    precision: IntegerPrecision = "int8",
    decided: Mapping[str, tuple[float, float]] | None = None,
    keep_float: Collection[str] = (),
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> OnnxModel:
    """Write a network as an integer ONNX file.

    Args:
        core: [n, height, width, 3] float -> [n, classes] probabilities.
        images: calibration images, uint8 batches [n, height, width, 3]; "dynamic" does not read them.
        scale: real value of one level of the input; x = image * scale + offset.
        offset: real value of level 0.
        precision: "int8" (uint8 activations, int8 weights a channel); "int16x8" (uint16 activations: near-float
            accuracy, and slower than float32, as ONNX Runtime computes it in float); "dynamic" (int8 weights, widened
            when the file is opened: a quarter of the size at float32's speed, and no images needed. ONNX Runtime's own
            dynamic quantization would be ten times slower, as it has no fast ConvInteger).
        decided: smallest and largest value of a tensor, by its name in float_values, with zero between; the other
            tensors' are measured, and where all are decided no image is run. A first convolution whose range is
            decided computes with rounded weights, as in TFLite; logits stay float whatever is decided.
        keep_float: the operators that answer these tensors compute in float; names of float_values.
        metadata: goes into the file's metadata_props.
        progress: called with the number of calibration images done.

    Raises:
        ConverterError: a layer cannot be expressed, or there is no image.
    """
    graph, fallback = _graph(core, scale, offset)
    if precision == "dynamic":
        kept = onnx_plan.kept_float(graph, onnx_plan.NOTHING)
        _pack_bytes(graph)
        return replace(_model(graph, core, metadata, fallback), kept_float=kept)
    wide = precision == "int16x8"
    _shape_for_integers(graph)
    wishes = onnx_plan.Wishes(decided or {}, frozenset(keep_float), scale)
    plan = onnx_plan.plan(graph, wide, wishes)
    ranges = onnx_plan.decided(graph, plan, wishes)
    count = 0
    if unknown := plan.observed - set(ranges):
        watched = onnx_graph.to_model(graph, core.name, core.output_shape[-1], {})
        measured, count = onnx_ranges.activation_ranges(watched, unknown, images, progress)
        if not count:
            raise ConverterError("there is no calibration image; give a folder with 100 or more photographs")
        room = HEADROOM if wide else 1.0
        ranges |= {name: (room * low, room * high) for name, (low, high) in measured.items()}
    result = onnx_quantize.quantize(graph, plan, ranges, wide)
    return replace(
        _model(result, core, metadata, fallback),
        kept_float=onnx_plan.kept_float(graph, plan),
        ranges=ranges,
        calibration_images=count,
    )


def float_values(core: keras.Model, images: np.ndarray, *, scale: float, offset: float) -> dict[str, np.ndarray]:
    """Answer what every tensor holds of the float graph that quantize() makes integer.

    The names are those that quantize() knows, and the same for every network of this topology.

    Args:
        core: [n, height, width, 3] float -> [n, classes] probabilities.
        images: uint8 [n, height, width, 3].
        scale: real value of one level of the input; x = image * scale + offset.
        offset: real value of level 0.

    Returns:
        [n, ...] each, in the order of computation, channels last; behind them those that pad_channels adds.

    Raises:
        ConverterError: a layer cannot be expressed.
    """
    graph, _ = _graph(core, scale, offset)
    _shape_for_integers(graph)
    names = [node.output for node in graph.nodes]
    model = onnx_graph.to_model(graph, core.name, core.output_shape[-1], {})
    arrays = onnx_ranges.values(model, names, images)
    return {name: np.moveaxis(array, 1, -1) if array.ndim == 4 else array for name, array in arrays.items()}


def _shape_for_integers(graph: Graph) -> None:
    """Rewrite a float graph, in place, into the shape that the integer kernels are fast in."""
    onnx_rewrites.dense_last(graph)
    onnx_channels.pad_channels(graph)


def _model(graph: Graph, core: keras.Model, metadata: Mapping[str, str] | None, fallback: str) -> OnnxModel:
    model = onnx_graph.to_model(graph, core.name, core.output_shape[-1], metadata or {})
    return OnnxModel(model.SerializeToString(), len(graph.nodes), fallback)


def _graph(core: keras.Model, scale: float, offset: float) -> tuple[Graph, str]:
    """Return the float graph, and why it is tf2onnx's (empty where it is not)."""
    shape = core.inputs[0].shape if len(core.inputs) == 1 else ()
    if len(shape) != 4 or None in shape[1:]:
        raise ConverterError(f"{core.name} has no fixed [height, width, 3] input; build it with an input shape")
    if len(core.outputs) != 1 or len(core.outputs[0].shape) != 2:
        raise ConverterError(f"{core.name} is no classifier: its output is not [n, classes]")
    try:
        graph, fallback = onnx_walk.write(core, scale, offset), ""
    except (UnsupportedLayerError, AttributeError, IndexError, KeyError, TypeError) as exc:
        graph, fallback = onnx_fallback.write(core, scale, offset), f"{type(exc).__name__}: {exc}"
    onnx_rewrites.keep_pads_of_pools(graph)
    return graph, fallback


def _pack_halves(graph: Graph) -> None:
    """Store large weights as float16, widened by a Cast, which ONNX Runtime runs once when it opens the file."""
    for name in _large(graph):
        limit = float(np.finfo(np.float16).max)
        packed = graph.constant(graph.constants.pop(name).clip(-limit, limit).astype(np.float16), f"{name}.half")
        graph.nodes.insert(0, Node("Cast", [packed], name, {"to": 1}))


def _pack_bytes(graph: Graph) -> None:
    """Store large weights as int8 with a scale a channel, widened by Cast and Mul, which ONNX Runtime runs once.

    Depthwise ones stay float, as in TFLite: V1 0.25 gains 2.7 dB by it and is 5 % larger.
    """
    depthwise = {node.inputs[1] for node in graph.nodes if node.op == "Conv" and node.attributes.get("group", 1) > 1}
    for name in _large(graph):
        if name in depthwise and graph.constants[name].shape[1] == 1:
            continue
        weight = graph.constants.pop(name)
        shape = (-1, *[1] * (weight.ndim - 1))
        scale = np.maximum(np.abs(weight).reshape(len(weight), -1).max(axis=1), 1e-12).reshape(shape) / 127
        whole = graph.constant(np.rint(weight / scale).astype(np.int8), f"{name}.q")
        wide = graph.name(f"{name}.wide")
        factors = graph.constant(scale.astype(np.float32), f"{name}.scale")
        graph.nodes[:0] = [Node("Cast", [whole], wide, {"to": 1}), Node("Mul", [wide, factors], name)]


def _large(graph: Graph) -> list[str]:
    """Return the names of the weights of convolutions and dense layers that are worth packing."""
    weights = {node.inputs[1] for node in graph.nodes if node.op in ("Conv", "Gemm", "MatMul") and len(node.inputs) > 1}
    return sorted(w for w in weights if w in graph.constants and graph.constants[w].size >= SMALLEST_PACKED)
