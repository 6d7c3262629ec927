"""The layer table built as a Keras model: the same function and the same weight order as keras.applications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgenet import layers
from edgenet.spec import ModelSpec

if TYPE_CHECKING:
    import keras


def build(spec: ModelSpec) -> keras.Model:
    """Build a network with random weights.

    Its input is float32 [n, size, size, 3] in -1..1 for every family (Keras' V3 takes 0..255 through a Rescaling layer
    of its own, which holds no weights and stands outside here); its output is float32 [n, classes], probabilities.
    """
    import keras

    image = keras.Input((spec.size, spec.size, 3), name="image")
    outputs: dict[str, Any] = {}
    x = image
    for layer in layers.layout(spec):
        x = _apply(layer, x, outputs, spec)
        outputs[layer.name] = x
    return keras.Model(image, x, name=spec.name.replace(".", "_"))


def _apply(layer: layers.Layer, x: Any, outputs: dict[str, Any], spec: ModelSpec) -> Any:
    import keras

    if layer.type == "add":
        return keras.layers.Add(name=layer.name)([outputs[layer.residual], x])
    if layer.type == "scale":
        return keras.layers.Multiply(name=layer.name)([outputs[layer.residual], x])
    if layer.type == "pool":
        keepdims = spec.family != "mobilenet_v2"
        return keras.layers.GlobalAveragePooling2D(keepdims=keepdims, name=layer.name)(x)
    if layer.type == "fully connected":
        return _classifier(layer, x, spec)
    return _activation(layer, _convolution(layer, x, spec))


def _convolution(layer: layers.Layer, x: Any, spec: ModelSpec) -> Any:
    import keras

    padding = "same"
    if layer.pad is not None:
        x = keras.layers.ZeroPadding2D((layer.pad, layer.pad), name=f"{layer.name}_pad")(x)
        padding = "valid"
    bias = not layer.batch_norm
    if layer.type == "depthwise":
        convolution = keras.layers.DepthwiseConv2D(layer.kernel, layer.stride, padding, use_bias=bias, name=layer.name)
    else:
        convolution = keras.layers.Conv2D(
            layer.output.channels, layer.kernel, layer.stride, padding, use_bias=bias, name=layer.name
        )
    x = convolution(x)
    if layer.batch_norm:
        momentum = 0.99 if spec.family == "mobilenet_v1" else 0.999
        x = keras.layers.BatchNormalization(momentum=momentum, epsilon=1e-3, name=f"{layer.name}_bn")(x)
    return x


def _activation(layer: layers.Layer, x: Any) -> Any:
    import keras

    if layer.activation == "relu":
        return keras.layers.ReLU(name=f"{layer.name}_relu")(x)
    if layer.activation == "relu6":
        return keras.layers.ReLU(6.0, name=f"{layer.name}_relu")(x)
    if layer.activation == "hard_swish":
        return keras.layers.Activation("hard_swish", name=f"{layer.name}_hard_swish")(x)
    if layer.activation == "hard_sigmoid":
        # Keras' own V3 writes it so; keras.activations.hard_sigmoid differs from it in the last bit.
        return keras.layers.ReLU(6.0, name=f"{layer.name}_relu6")(x + 3.0) * (1.0 / 6.0)
    return x


def _classifier(layer: layers.Layer, x: Any, spec: ModelSpec) -> Any:
    """Each family ends as its Keras original does, so that its weight files load."""
    import keras

    if spec.family == "mobilenet_v2":
        return keras.layers.Dense(spec.classes, activation="softmax", name=layer.name)(x)
    rate = 0.001 if spec.family == "mobilenet_v1" else 0.2
    x = keras.layers.Dropout(rate, name="dropout")(x)
    x = keras.layers.Conv2D(spec.classes, 1, padding="same", name=layer.name)(x)
    flatten = keras.layers.Reshape((spec.classes,)) if spec.family == "mobilenet_v1" else keras.layers.Flatten()
    return keras.layers.Activation("softmax", name="predictions")(flatten(x))
