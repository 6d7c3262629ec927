"""Keras -> TFLite: float32, float16, dynamic range, int8, int16x8.

TensorFlow's converter makes the float graph, ai-edge-quantizer the integer ones. What stays float in int8 files:

- HARD_SWISH stays float. XNNPACK has no int8 HARD_SWISH: quantized, each one leaves the delegate (4.5 of V3-Large's
  5.8 ms). As dequantize - HARD_SWISH - quantize it is one cheap step inside.
- The logits and the softmax or sigmoid: every file answers float32 probabilities without ties. See tflite_classifier.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from converters import tflite_classifier, tflite_graph
from converters.calibration import HEADROOM, TensorRange, activation_ranges
from converters.errors import ConverterError

if TYPE_CHECKING:
    import keras

FloatPrecision = Literal["float32", "float16"]
IntegerPrecision = Literal["int8", "int16x8", "dynamic"]

_STAYS_FLOAT = ("HARD_SWISH", "SOFTMAX", "INPUT", "OUTPUT")


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """A TFLite file's bytes: uint8 [1, h, w, 3] in, float32 [1, classes] probabilities out.

    Attributes:
        flatbuffer: the file, without labels.
        kept_float: operators of a quantized file that compute in float, such as "HARD_SWISH x 19"; not the classifier
            of an int8 file, which multiplies integers and answers float.
        ranges: the activation ranges that were written into it.
        calibration_images: how many images the ranges come from.
    """

    flatbuffer: bytes
    kept_float: tuple[str, ...] = ()
    ranges: tuple[TensorRange, ...] = ()
    calibration_images: int = 0


def trace(core: keras.Model, precision: FloatPrecision = "float32") -> bytes:
    """Convert a network into a float TFLite graph with its own, normalized float input, at batch 1.

    The converter is given the traced function alone, and freezes its variables. Given the Keras model with it, it
    answers NaN; given the Keras model or a SavedModel in its place, it takes four times as long.

    Raises:
        ConverterError: TensorFlow's converter cannot express a layer.
    """
    import tensorflow as tf

    shape = (1, *core.inputs[0].shape[1:])
    function = tf.function(lambda image: core(image, training=False), autograph=False)
    with _quietly(), _as_converter_error():
        concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name="image"))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        if precision == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())


def convert(graph: bytes, *, scale: float, offset: float) -> TfliteModel:
    """Give a traced float graph the uint8 input; x = image * scale + offset, exactly."""
    return TfliteModel(tflite_graph.uint8_front(graph, scale, 0, offset))


def quantize(
    graph: bytes,
    images: Iterable[np.ndarray],
    *,
    scale: float,
    offset: float,
    precision: IntegerPrecision = "int8",
    decided: Mapping[str, tuple[float, float]] | None = None,
    keep_float: Collection[str] = (),
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> TfliteModel:
    """Quantize a traced float32 graph.

    Args:
        graph: what trace() answered.
        images: calibration images, uint8 batches [n, h, w, 3]; "dynamic" does not read them.
        scale: real value of one level of the input; x = image * scale + offset.
        offset: real value of level 0.
        precision: "int8" (weights per channel, activations int8), "int16x8" (int8 weights, int16 activations) or
            "dynamic" (int8 weights, activations quantized at run time; depthwise convolutions stay float).
        decided: smallest and largest value of a tensor, by its name in the graph; the other tensors' are measured.
        keep_float: the operators that answer these tensors compute in float.
        threads: of the runtime that measures the ranges.
        progress: called with the number of calibration images done.

    Raises:
        ConverterError: the network holds an operator that cannot be quantized.
    """
    if precision == "dynamic":
        quantized = _quantized(graph, "dynamic_wi8_afp32", (), ("DEPTHWISE_CONV_2D",))
        quantized = tflite_classifier.dense_as_convolution(quantized)
        flatbuffer = tflite_graph.uint8_front(quantized, scale, 0, offset)
        return TfliteModel(flatbuffer, tflite_graph.kept_float(quantized))
    zero = tflite_graph.zero_point(scale, offset)
    graph = tflite_graph.shift_input(graph, offset + zero * scale)
    counted = _Counted(images)
    known = decided or {}
    ranges = activation_ranges(
        graph, counted, scale=scale, offset=-zero * scale, known=known, threads=threads, progress=progress
    )
    in_float = tflite_classifier.float_tensors(graph) if precision == "int8" else ()
    if precision == "int16x8":
        ranges = (ranges[0], *(r if r.tensor in known else _with_room(r) for r in ranges[1:]))
    levels, recipe = (255, "static_wi8_ai8") if precision == "int8" else (65535, "static_wi8_ai16")
    scales = {r.tensor: (r.high - r.low) / levels for r in ranges}
    graph = tflite_graph.lift_dead_channels(graph, lambda tensor: scales.get(tensor, 1.0))
    ranges = tuple(r for r in ranges if r.tensor not in in_float)
    end = tflite_classifier.probabilities(graph)
    quantized = _quantized(graph, recipe, ranges, _STAYS_FLOAT, (*keep_float, *end), in_float)
    quantized = tflite_classifier.dense_as_convolution(quantized)
    flatbuffer = tflite_graph.uint8_front(quantized, scale, zero, 0.0)
    return TfliteModel(flatbuffer, tflite_graph.kept_float(quantized), ranges, counted.images)


def _quantized(
    graph: bytes,
    recipe_name: str,
    ranges: tuple[TensorRange, ...],
    stays_float: tuple[str, ...],
    keep_float: Collection[str] = (),
    classifier: tuple[str, ...] = (),
) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer, recipe

    statistics = {r.tensor: {"min": _extent(r.low, r.rank), "max": _extent(r.high, r.rank)} for r in ranges}
    with _quietly():
        worker = quantizer.Quantizer(bytearray(graph))
        worker.load_quantization_recipe(getattr(recipe, recipe_name)())
        for name in stays_float:
            operation = qtyping.TFLOperationName[name]
            worker.update_quantization_recipe(regex=".*", operation_name=operation, algorithm_key="no_quantize")
        for tensor in (*keep_float, *classifier):
            every = qtyping.TFLOperationName.ALL_SUPPORTED
            worker.update_quantization_recipe(_answering(tensor), every, algorithm_key="no_quantize")
        for tensor in (one for one in classifier if one not in keep_float):
            for name in ("FULLY_CONNECTED", "CONV_2D"):
                worker.add_dynamic_config(_answering(tensor), qtyping.TFLOperationName[name], num_bits=8)
        try:
            result = worker.quantize(statistics) if ranges else worker.quantize()
        except (ValueError, RuntimeError, KeyError) as exc:
            raise ConverterError(f"this network cannot be quantized: {_unquantized(exc)}") from exc
    return bytes(result.quantized_model)


def _unquantized(exc: BaseException) -> str:
    if "while_" in str(exc):
        return "it has a loop (LSTM, GRU), whose inside is calibrated nowhere; give --precision dynamic, or convert it"
    return _first_line(exc)


def _answering(tensor: str) -> str:
    """Match the operator of this answer: aeq's scope is the names of its outputs, each with a semicolon behind it."""
    return f"^{re.escape(tensor)};"


def _extent(value: float, rank: int) -> np.ndarray:
    return np.full((1,) * rank, value, np.float32)


def _first_line(exc: BaseException) -> str:
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)[:200]


@contextlib.contextmanager
def _as_converter_error() -> Any:
    """Map what TensorFlow raises while it traces, freezes and converts."""
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError as TensorflowRefusal

    try:
        yield
    except (TensorflowRefusal, tf.errors.OpError, ValueError, TypeError, NotImplementedError) as exc:
        unknown = sorted(set(re.findall(r"'tf\.(\w+)' op is neither", str(exc))))
        why = f"TFLite has no {', '.join(unknown)}; convert to ONNX instead" if unknown else _first_line(exc)
        raise ConverterError(f"TensorFlow cannot express this network in TFLite: {why}") from exc


@contextlib.contextmanager
def _quietly() -> Any:
    """Keep the progress bars, banners and warnings of the libraries away from the user's terminal."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _with_room(seen: TensorRange) -> TensorRange:
    return replace(seen, low=HEADROOM * seen.low, high=HEADROOM * seen.high)


class _Counted:
    """Batches that count the images that went by."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches = batches
        self.images = 0

    def __iter__(self) -> Any:
        for batch in self._batches:
            self.images += len(batch)
            yield batch
