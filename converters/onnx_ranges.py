"""Activation ranges of a float ONNX graph: the true minimum and maximum of each tensor over every image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

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
    import onnx
    import onnxruntime

    names = sorted(tensors)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in present
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
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
