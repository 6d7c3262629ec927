"""What the tensors of a float ONNX graph hold: their true minimum and maximum over every image, or the values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.onnx_graph import INPUT

if TYPE_CHECKING:
    import onnx


def activation_ranges(
    model: onnx.ModelProto,
    tensors: Iterable[str],
    images: Iterable[np.ndarray],
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, tuple[float, float]], int]:
    """Run a model over images, one at a time.

    Args:
        model: Keeps this package's input contract.
        tensors: Names of float tensors in it.
        images: uint8 batches [n, height, width, 3].
        progress: Called with the number of images done.

    Returns:
        Smallest and largest value of each tensor, and the number of images.
    """
    names = sorted(tensors)
    session = _watching(model, names)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    count = 0
    for batch in images:
        for image in batch:
            for index, value in enumerate(session.run(names, {INPUT: image[None]})):
                low[index], high[index] = min(low[index], value.min()), max(high[index], value.max())
            count += 1
            if progress:
                progress(count)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}, count


def values(model: onnx.ModelProto, tensors: Iterable[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """Run a model over images [n, height, width, 3]; return what its float tensors of these names hold, [n, ...]."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    floats = {info.name for info in (*inferred.value_info, *inferred.output) if _is_float(info)}
    names = [name for name in tensors if name in floats]
    session = _watching(model, names)
    rows = [session.run(names, {INPUT: image[None]}) for image in images]
    return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(names)}


def _is_float(info: onnx.ValueInfoProto) -> bool:
    import onnx

    return bool(info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _watching(model: onnx.ModelProto, names: list[str]) -> Any:
    """Open a model that answers these float tensors too."""
    import onnx

    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its wheels would report to Microsoft what they run
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in present
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
