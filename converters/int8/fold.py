"""Batch normalization folded into the layers before it, in Keras: so that what is corrected is what is quantized.

The result is a copy with weights of its own: Conv2D, DepthwiseConv2D and Dense with a bias each, and every activation
a layer of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.int8 import graph

if TYPE_CHECKING:
    import keras


def fold(core: keras.Model, shift: float = 0.0) -> keras.Model:
    """Copy a network with its batch normalizations folded; the same function to float32's precision.

    Args:
        core: [n, height, width, 3] float -> [n, classes]; layers without weights are shared with the copy.
        shift: the copy reads x - shift where `core` reads x, exactly but under the zero padding at the border; only
            where a convolution is what reads the image (takes_shift).
    """
    import keras

    normalizations = _foldable(core)
    gone = {norm.name for norm in normalizations.values()}
    activations: dict[str, Any] = {}

    def copy(layer: Any) -> Any:
        if not graph.weighted(layer):
            return layer
        config = layer.get_config()
        if layer.activation is not keras.activations.linear:
            name = f"{layer.name}_activation"
            activations[layer.name] = keras.layers.Activation(layer.activation, name=name)
        return type(layer).from_config({**config, "use_bias": True, "activation": "linear"})

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name in gone:
            return args[0]
        y = layer(*args, **kwargs)
        return activations[layer.name](y) if layer.name in activations else y

    folded = keras.models.clone_model(core, clone_function=copy, call_function=call)
    for layer in core.layers:
        if graph.weighted(layer):
            kernel, bias = _folded_weights(layer, normalizations.get(layer.name))
            folded.get_layer(layer.name).set_weights([kernel, bias])
    if shift:
        first = _first_convolution(folded)
        assert first is not None, "ask takes_shift first"
        kernel, bias = first.get_weights()
        first.set_weights([kernel, bias + np.float32(shift) * kernel.sum(axis=(0, 1, 2))])
    return folded


def takes_shift(core: keras.Model) -> bool:
    """Say whether a convolution is what reads the image."""
    return _first_convolution(core) is not None


def _first_convolution(core: keras.Model) -> Any | None:
    """Find the convolution that alone reads the input, directly or behind a zero padding."""
    import keras

    found = graph.readers(core)
    following = found.get(id(core.inputs[0]), [])
    if len(following) == 1 and isinstance(following[0].operation, keras.layers.ZeroPadding2D):
        following = found.get(id(following[0].outputs[0]), [])
    if len(following) != 1 or type(following[0].operation) is not keras.layers.Conv2D:
        return None
    layer = following[0].operation
    return layer if layer.groups == 1 and graph.called_once(core, layer) else None


def _foldable(core: keras.Model) -> dict[str, Any]:
    """Map a layer's name to the batch normalization that alone reads it, each called once."""
    import keras

    found = graph.readers(core)
    normalizations: dict[str, Any] = {}
    for node in graph.nodes(core):
        reader = graph.only_reader(found, node)
        if reader is None or not graph.weighted(node.operation):
            continue
        once = graph.called_once(core, node.operation) and graph.called_once(core, reader.operation)
        plain = node.operation.activation is keras.activations.linear and node.outputs[0] is not core.outputs[0]
        norm = reader.operation
        if not once or not plain or not isinstance(norm, keras.layers.BatchNormalization):
            continue
        axes = len(node.outputs[0].shape)
        if norm.axis % axes == axes - 1:  # of the channels
            normalizations[node.operation.name] = reader.operation
    return normalizations


def _folded_weights(layer: Any, norm: Any | None) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.asarray(layer.kernel).astype(np.float64)
    channels = kernel.shape[2] * kernel.shape[3] if graph.depthwise(layer) else kernel.shape[-1]
    bias = np.asarray(layer.bias).astype(np.float64) if layer.use_bias else np.zeros(channels)
    if norm is not None:
        slope = 1 / np.sqrt(np.asarray(norm.moving_variance).astype(np.float64) + norm.epsilon)
        if norm.scale:
            slope = slope * np.asarray(norm.gamma)
        bias = (bias - np.asarray(norm.moving_mean)) * slope + (np.asarray(norm.beta) if norm.center else 0)
        kernel = kernel * (slope.reshape(kernel.shape[2:]) if graph.depthwise(layer) else slope)
    return kernel.astype(np.float32), bias.astype(np.float32)
