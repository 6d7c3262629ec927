"""Activation ranges of a float TFLite graph from representative images: the true minimum and maximum of every tensor.

ai-edge-quantizer's own calibration averages ranges over images, which clips them (on ImageNet photographs V3-Small
falls from .85 to .60 agreement); so the ranges are measured here and handed to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import ConverterError

SMALLEST_SPAN = 1e-3
"""A dead channel would give a scale of 1e-9, which XNNPACK refuses; no trained activation spans less than this."""

HEADROOM = 2.0
"""How many times as far as was seen activations of 16 bits reach: one bit of sixteen, so that no image is cut off."""


@dataclass(frozen=True, slots=True)
class TensorRange:
    """What one tensor held over all images.

    Attributes:
        tensor: its name in the graph.
        rank: its number of dimensions.
        low: smallest value seen, in real units; at most 0, so that zero is representable.
        high: largest value seen, in real units; at least 0.
    """

    tensor: str
    rank: int
    low: float
    high: float


def activation_ranges(
    model: bytes,
    images: Iterable[np.ndarray],
    *,
    scale: float,
    offset: float,
    known: Mapping[str, tuple[float, float]] | None = None,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[TensorRange, ...]:
    """Run a float TFLite graph over images and note each activation's true minimum and maximum.

    Args:
        model: float32 TFLite flatbuffer, one input [1, h, w, 3].
        images: uint8 batches [n, h, w, 3].
        scale: real value of one level of the input; x = image * scale + offset.
        offset: real value of level 0.
        known: ranges that are decided already, by tensor name; where all are, no image is run.
        threads: of the runtime.
        progress: called with the number of images done.

    Returns:
        One range a tensor. The input's is what uint8 can hold, whatever the images hold.
    """
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns that all tensors are kept: that is the point
        graph = Interpreter(model_content=model, experimental_preserve_all_tensors=True, num_threads=threads)
    graph.allocate_tensors()
    image_index = graph.get_input_details()[0]["index"]
    produced = {t for op in graph._get_ops_details() if op["op_name"] != "DELEGATE" for t in op["outputs"]}
    known = known or {}
    floats = [t for t in graph.get_tensor_details() if t["index"] in produced and t["dtype"] == np.float32]
    tensors = [t for t in floats if t["name"] not in known]
    low = np.zeros(len(tensors))
    high = np.zeros(len(tensors))
    done = 0
    for batch in images if tensors else ():
        for image in batch:
            graph.set_tensor(image_index, (image[np.newaxis] * np.float32(scale) + np.float32(offset)))
            graph.invoke()
            for i, tensor in enumerate(tensors):
                values = _values(graph, tensor["index"])
                low[i] = np.minimum(low[i], values.min())  # unlike min, keeps a NaN
                high[i] = np.maximum(high[i], values.max())
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                raise ConverterError("the network answers NaN or infinity inside; are its weights whole?")
            done += 1
            if progress:
                progress(done)
    spans = tuple(_range(tensor, float(lo), float(hi)) for tensor, lo, hi in zip(tensors, low, high, strict=True))
    spans += tuple(_range(tensor, *known[tensor["name"]]) for tensor in floats if tensor["name"] in known)
    image_tensor = graph.get_input_details()[0]
    return (TensorRange(image_tensor["name"], 4, offset, 255 * scale + offset), *spans)


def _values(graph: Any, tensor: int) -> np.ndarray:
    try:
        values: np.ndarray = graph.get_tensor(tensor)
    except ValueError as exc:  # it is kept nowhere, and gets no range
        raise ConverterError(
            "this network cannot be quantized: nobody reads a part of a split in it (an unrolled LSTM has such), which "
            "the delegate refuses; give --precision dynamic, or convert it"
        ) from exc
    return values


def _range(tensor: dict[str, Any], low: float, high: float) -> TensorRange:
    return TensorRange(tensor["name"], len(tensor["shape"]), low, max(high, low + SMALLEST_SPAN))
