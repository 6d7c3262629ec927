"""Folding: the same function with no batch normalization left that could be folded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converters.int8 import graph
from converters.int8.fold import fold, takes_shift

WEIGHTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def spread(model: keras.Model) -> keras.Model:
    """Give every bias and every batch normalization something to say."""
    rng = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.2, 3, layer.moving_variance.shape))
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 2, layer.gamma.shape) * rng.choice([-1, 1], layer.gamma.shape))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.5, layer.beta.shape))
        elif isinstance(layer, WEIGHTED):
            layer.kernel.assign(layer.kernel * 2)
            if layer.use_bias:
                layer.bias.assign(rng.normal(0, 0.5, layer.bias.shape))
    return model


def noise(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 1, (4, 16, 16, channels)).astype(np.float32)


def network(*, scale: bool, center: bool, bias: bool) -> keras.Model:
    """Each kind of layer with a batch normalization behind it; and two layers with activations inside."""

    def normalized(x: Any) -> Any:
        return layers.BatchNormalization(scale=scale, center=center)(x)

    keras.utils.set_random_seed(5)
    image = keras.Input((16, 16, 3))
    x = layers.ReLU()(normalized(layers.Conv2D(6, 3, 2, "same", use_bias=bias)(image)))
    x = layers.ReLU(6.0)(normalized(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=bias)(x)))
    x = normalized(layers.Conv2D(8, 1, groups=2, use_bias=bias)(x))
    x = normalized(layers.Conv2D(5, 1, use_bias=bias, activation="relu", name="early")(x))
    x = normalized(layers.Dense(7, use_bias=bias)(layers.Flatten()(x)))
    return spread(keras.Model(image, layers.Dense(4, activation="elu", use_bias=bias, name="head")(x)))


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_folded_network_is_the_same_function(scale: bool, center: bool, bias: bool) -> None:
    model = network(scale=scale, center=center, bias=bias)
    before, expected = model.get_weights(), np.asarray(model(noise()))
    folded = fold(model)
    assert np.ptp(expected, axis=0).max() > 0.3, "the pictures must differ"
    np.testing.assert_allclose(np.asarray(folded(noise())), expected, rtol=1e-4, atol=1e-5)
    for layer in folded.layers:
        if isinstance(layer, WEIGHTED):
            assert layer.use_bias
            assert layer.activation is keras.activations.linear
    left = [layer for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
    assert len(left) == 1, "the one behind an activation, and no other"
    assert {"early_activation", "head_activation"} <= {layer.name for layer in folded.layers}
    for kept, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kept, was)


def test_a_normalization_of_another_axis_stays() -> None:
    image = keras.Input((6, 6, 3))
    x = layers.BatchNormalization(axis=1)(layers.Conv2D(5, 3, padding="same")(image))
    model = spread(keras.Model(image, layers.Dense(4, "softmax")(layers.Flatten()(x))))
    pixels = noise()[:, :6, :6]
    np.testing.assert_allclose(np.asarray(fold(model)(pixels)), np.asarray(model(pixels)), rtol=1e-4, atol=1e-5)


def test_the_copy_has_weights_of_its_own() -> None:
    model = network(scale=True, center=True, bias=True)
    expected = np.asarray(model(noise()))
    for layer in fold(model).layers:
        if isinstance(layer, WEIGHTED):
            layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    np.testing.assert_array_equal(np.asarray(model(noise())), expected)


@pytest.mark.parametrize("shared", ["layer", "normalization", "tensor"])
def test_what_is_shared_is_not_folded(shared: str) -> None:
    """A layer called twice, a normalization called twice, and a tensor that is read beside its normalization."""
    image = keras.Input((16, 16, 3))
    convolutions = [layers.Conv2D(3, 3, padding="same") for _ in range(2)]
    normalizations = [layers.BatchNormalization() for _ in range(2)]
    if shared == "layer":
        convolutions[1] = convolutions[0]
    if shared == "normalization":
        normalizations[1] = normalizations[0]
    first = convolutions[0](image)
    x = normalizations[1](convolutions[1](normalizations[0](first)))
    if shared == "tensor":
        x = layers.Add()([first, x])
    model = spread(keras.Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x))))
    folded = fold(model)
    np.testing.assert_allclose(np.asarray(folded(noise())), np.asarray(model(noise())), rtol=1e-4, atol=1e-5)
    kept = [layer for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
    assert len(kept) == {"layer": 2, "normalization": 1, "tensor": 1}[shared]


def test_a_layer_with_an_activation_that_is_called_twice() -> None:
    image = keras.Input((16, 16, 3))
    twice = layers.Conv2D(3, 3, padding="same", activation="tanh", name="twice")
    model = spread(keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(twice(twice(image))))))
    np.testing.assert_allclose(np.asarray(fold(model)(noise())), np.asarray(model(noise())), rtol=1e-5)


SHIFT = -0.37


@pytest.mark.parametrize(
    ("padding", "zeros", "border"),
    [("valid", 0, 0), ("same", 0, 1), ("valid", 1, 1), ("valid", 2, 2)],
    ids=["none", "same", "explicit", "wide"],
)
def test_a_shift_is_exact_but_at_the_border(padding: str, zeros: int, border: int) -> None:
    image = keras.Input((16, 16, 3))
    x = layers.ZeroPadding2D(zeros)(image) if zeros else image
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, padding=padding)(x))
    model = spread(keras.Model(image, x))
    wanted = np.asarray(model(noise() + np.float32(SHIFT)))
    found = np.asarray(fold(model, SHIFT)(noise()))
    inside = slice(border, -border) if border else slice(None)
    np.testing.assert_allclose(found[:, inside, inside], wanted[:, inside, inside], atol=2e-5)
    assert np.abs(np.asarray(fold(model)(noise())) - wanted)[:, inside, inside].max() > 0.1, "the shift must matter"
    if border:
        assert np.abs(found - wanted).max() > 0.05, "under the padding there are zeros, not shifted ones"


def twice(image: Any) -> Any:
    layer = layers.Conv2D(3, 3, padding="same")
    return layer(layer(image))


READERS: dict[str, tuple[bool, Callable[[Any], Any]]] = {
    "convolution": (True, lambda x: layers.Conv2D(3, 3)(x)),
    "padding and convolution": (True, lambda x: layers.Conv2D(3, 3)(layers.ZeroPadding2D(1)(x))),
    "grouped convolution": (False, lambda x: layers.Conv2D(3, 3, groups=3)(x)),
    "depthwise convolution": (False, lambda x: layers.DepthwiseConv2D(3)(x)),
    "dense layer": (False, lambda x: layers.Dense(3)(x)),
    "scaling": (False, lambda x: layers.Conv2D(3, 3)(layers.Rescaling(2.0)(x))),
    "convolution that is called again": (False, twice),
    "two readers": (False, lambda x: layers.Conv2D(3, 3, padding="same")(x) + x),
    "two readers of the padding": (False, lambda x: layers.Conv2D(3, 1)(p := layers.ZeroPadding2D(1)(x)) + p),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_takes_a_shift(reader: str) -> None:
    expected, make = READERS[reader]
    image = keras.Input((16, 16, 3))
    assert takes_shift(keras.Model(image, make(image))) == expected


def test_nodes_come_after_what_they_read() -> None:
    model = network(scale=True, center=True, bias=True)
    known = {id(model.inputs[0])}
    for node in graph.nodes(model):
        assert all(id(tensor) in known for tensor in node.input_tensors)
        known |= {id(tensor) for tensor in node.outputs}
    assert id(model.outputs[0]) in known
