"""Keras -> ONNX: float32 and float16, and from there int8, int16x8, and 8-bit weights alone.

Every file takes uint8 RGB NHWC [1, height, width, 3] named "image" and answers float32 "probabilities" [1, classes].

The direct writer knows the layers of image classifiers and takes a tenth of a second; what it does not know goes
through tf2onnx.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from converters import onnx_channels, onnx_fallback, onnx_graph, onnx_quantize, onnx_ranges, onnx_rewrites, onnx_walk
from converters.errors import ConverterError
from converters.onnx_graph import Graph, Node
from converters.onnx_layers import UnsupportedLayerError

if TYPE_CHECKING:
    import keras
    import onnx

FloatPrecision = Literal["float32", "float16"]
IntegerPrecision = Literal["int8", "int16x8", "dynamic"]

# Smaller arrays (biases, bounds, shapes) are not worth a node each.
SMALLEST_PACKED = 256


@dataclass(frozen=True, slots=True)
class OnnxConversion:
    """A float file.

    Attributes:
        path: the file.
        writer: who wrote the graph.
        nodes: how many operators it has.
        reason: which layer made it tf2onnx; empty for the direct writer.
    """

    path: Path
    writer: Literal["direct", "tf2onnx"]
    nodes: int
    reason: str


@dataclass(frozen=True, slots=True)
class OnnxQuantization:
    """An integer file.

    Attributes:
        path: the file.
        kept_float: operators that compute in float, such as "Conv x 1".
        calibration_images: how many images the ranges come from.
        ranges: smallest and largest value of each activation over all images, in real units.
    """

    path: Path
    kept_float: tuple[str, ...]
    calibration_images: int
    ranges: Mapping[str, tuple[float, float]]


def convert(
    core: keras.Model,
    out: Path,
    *,
    scale: float,
    offset: float,
    precision: FloatPrecision = "float32",
    metadata: Mapping[str, str] | None = None,
) -> OnnxConversion:
    """Write a network as a float ONNX file.

    float16 stores the weights in half the space and computes in float32: ONNX Runtime has few half-precision kernels
    for a CPU, and it widens the weights once, when it opens the file, so that the file is as fast as float32.

    Args:
        core: [n, height, width, 3] float -> [n, classes] probabilities.
        out: The file; it appears whole or not at all.
        scale: The core's input is image * scale + offset ...
        offset: ... of the uint8 image; exactly so, at padded borders too.
        precision: Of the weights.
        metadata: Goes into the file's metadata_props.

    Raises:
        ConverterError: a layer cannot be expressed, or the file cannot be written.
    """
    graph, reason = _graph(core, scale, offset)
    if precision == "float16":
        _pack_halves(graph)
    model = onnx_graph.to_model(graph, core.name, core.output_shape[-1], metadata or {})
    _save(model, out)
    return OnnxConversion(out, "tf2onnx" if reason else "direct", len(graph.nodes), reason)


def quantize(
    float_onnx: Path,
    out: Path,
    images: Iterable[np.ndarray],
    *,
    precision: IntegerPrecision = "int8",
    metadata: Mapping[str, str] | None = None,
) -> OnnxQuantization:
    """Quantize a float32 file of `convert`; its metadata go along.

    Args:
        float_onnx: The float32 file.
        out: The file; it appears whole or not at all.
        images: uint8 RGB batches [n, height, width, 3], preprocessed as the network will meet them.
        precision: "int8" (uint8 activations, int8 weights a channel); "int16x8" (uint16 activations: near-float
            accuracy, and slower than float32, as ONNX Runtime computes it in float); "dynamic" (int8 weights, widened
            when the file is opened: a quarter of the size at float32's speed, and no images needed. ONNX Runtime's own
            dynamic quantization would be ten times slower, as it has no fast ConvInteger).
        metadata: Added to the file's metadata_props.

    Raises:
        ConverterError: the file cannot be read or written, or there is no image.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(float_onnx)
        graph = onnx_graph.from_model(model)
    except (OSError, DecodeError, ValueError, IndexError, StopIteration) as exc:
        raise ConverterError(
            f"{float_onnx} is not a float ONNX file of this tool: {exc}; convert the model again"
        ) from exc
    known = {entry.key: entry.value for entry in model.metadata_props}
    classes = model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    return _quantize(graph, model.graph.name, classes, out, images, precision, {**known, **(metadata or {})})


def quantize_network(
    core: keras.Model,
    out: Path,
    images: Iterable[np.ndarray],
    *,
    scale: float,
    offset: float,
    precision: IntegerPrecision = "int8",
    metadata: Mapping[str, str] | None = None,
) -> OnnxQuantization:
    """Convert and quantize in one step, without the float file between; see `convert` and `quantize`."""
    graph, _ = _graph(core, scale, offset)
    return _quantize(graph, core.name, core.output_shape[-1], out, images, precision, metadata or {})


def _graph(core: keras.Model, scale: float, offset: float) -> tuple[Graph, str]:
    """Return the float graph, and why it is tf2onnx's (empty where it is not)."""
    shape = core.inputs[0].shape if len(core.inputs) == 1 else ()
    if len(shape) != 4 or None in shape[1:]:
        raise ConverterError(f"{core.name} has no fixed [height, width, 3] input; build it with an input shape")
    if len(core.outputs) != 1 or len(core.outputs[0].shape) != 2:
        raise ConverterError(f"{core.name} is no classifier: its output is not [n, classes]")
    try:
        return onnx_walk.write(core, scale, offset), ""
    except UnsupportedLayerError as exc:
        return onnx_fallback.write(core, scale, offset), str(exc)


def _quantize(
    graph: Graph,
    name: str,
    classes: int,
    out: Path,
    images: Iterable[np.ndarray],
    precision: IntegerPrecision,
    metadata: Mapping[str, str],
) -> OnnxQuantization:
    if precision == "dynamic":
        kept = onnx_quantize.kept_float(graph, onnx_quantize.NOTHING)
        _pack_bytes(graph)
        _save(onnx_graph.to_model(graph, name, classes, metadata), out)
        return OnnxQuantization(out, kept, 0, {})
    wide = precision == "int16x8"
    onnx_rewrites.dense_last(graph)
    onnx_channels.pad_channels(graph)
    plan = onnx_quantize.plan(graph, wide)
    watched = onnx_graph.to_model(graph, name, classes, {})
    ranges, count = onnx_ranges.activation_ranges(watched, plan.observed, images)
    if not count:
        raise ConverterError("there is no calibration image; give a folder with 100 or more photographs")
    result = onnx_quantize.quantize(graph, plan, ranges, wide)
    _save(onnx_graph.to_model(result, name, classes, metadata), out)
    return OnnxQuantization(out, onnx_quantize.kept_float(graph, plan), count, ranges)


def _pack_halves(graph: Graph) -> None:
    """Store large weights as float16, widened by a Cast, which ONNX Runtime runs once when it opens the file."""
    for name in _large(graph):
        limit = float(np.finfo(np.float16).max)
        packed = graph.constant(graph.constants.pop(name).clip(-limit, limit).astype(np.float16), f"{name}.half")
        graph.nodes.insert(0, Node("Cast", [packed], name, {"to": 1}))


def _pack_bytes(graph: Graph) -> None:
    """Store large weights as int8 with a scale a channel, widened by Cast and Mul, which ONNX Runtime runs once."""
    for name in _large(graph):
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


def _save(model: onnx.ModelProto, out: Path) -> None:
    """Write beside the file, flush to the disk, and rename."""
    partial = None
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            partial = Path(file.name)
            file.write(model.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(out)
    except OSError as exc:
        raise ConverterError(f"cannot write {out}: {exc.strerror or exc}; choose another folder") from exc
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
