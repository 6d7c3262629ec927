"""Cross-layer equalization: each channel between a layer and the depthwise layer behind it fills the tensor's range.

relu(f x) = f relu(x), so a channel may be scaled up ahead of a ReLU and down behind it. Where a depthwise convolution
is what reads the tensor, that is free: its weights have a scale a channel. In effect the activations between the two
layers get a scale a channel too. (Into any other layer the factor would widen the spread of its weights.)

Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction (arXiv 1906.04721),
section 4.1, for the pairs where it costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.int8 import graph

if TYPE_CHECKING:
    import keras

LARGEST_GAIN = 8.0
HEADROOM = 1.1
"""ReLU6 clips a scaled channel earlier; this far above the largest value that was seen."""


def equalize(core: keras.Model, x: np.ndarray) -> int:
    """Scale the channels of a folded network in place.

    Args:
        core: what fold() answered.
        x: float images [n, height, width, 3] in the network's own range, to find the largest value of each channel.

    Returns:
        The number of pairs of layers that were equalized.
    """
    pairs = _pairs(core)
    largest = _largest(core, x, {id(relu) for _, relu, _ in pairs})
    for layer, relu, reader in pairs:
        seen = largest[id(relu)]
        ceiling = seen.max()
        gain = np.clip(ceiling / np.maximum(seen * HEADROOM, 1e-6), 1, LARGEST_GAIN)
        gain = np.where(seen > 0, gain, 1).astype(np.float32)
        kernel, bias = layer.get_weights()
        shaped = gain[:, np.newaxis] if graph.depthwise(layer) else gain
        layer.set_weights([kernel * shaped, bias * gain])
        kernel, bias = reader.get_weights()
        reader.set_weights([kernel / gain[:, np.newaxis], bias])
    return len(pairs)


def _pairs(core: keras.Model) -> list[tuple[Any, Any, Any]]:
    """Find layer, ReLU node and depthwise layer in a row, with nothing else reading in between."""
    import keras

    found = graph.readers(core)
    pairs = []
    for node in graph.nodes(core):
        layer = node.operation
        relu = graph.only_reader(found, node)
        if not graph.weighted(layer) or isinstance(layer, keras.layers.Dense) or relu is None:
            continue
        reader = graph.only_reader(found, relu)
        if reader is not None and isinstance(reader.operation, keras.layers.ZeroPadding2D):
            reader = graph.only_reader(found, reader)
        if reader is None or graph.activation(relu.operation) not in ("relu", "relu6"):
            continue
        simple = layer.kernel.shape[3] == 1 if graph.depthwise(layer) else True
        once = graph.called_once(core, layer) and graph.called_once(core, reader.operation)
        if graph.weighted(reader.operation) and graph.depthwise(reader.operation) and simple and once:
            pairs.append((layer, relu, reader.operation))
    return pairs


def _largest(core: keras.Model, x: np.ndarray, watched: set[int]) -> dict[int, np.ndarray]:
    import keras

    largest: dict[int, np.ndarray] = {}

    def call(node: Any, *args: Any, **kwargs: Any) -> Any:
        y = node.operation(*args, **kwargs)
        if id(node) in watched:
            largest[id(node)] = np.asarray(keras.ops.max(y, axis=(0, 1, 2)))
        return y

    graph.run(core, keras.ops.convert_to_tensor(x), call)
    return largest
