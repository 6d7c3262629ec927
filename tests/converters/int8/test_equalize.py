"""Equalization: the same function, with every channel ahead of a depthwise layer as wide as the tensor's range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from converters.int8.equalize import HEADROOM, LARGEST_GAIN, equalize
from converters.int8.fold import fold
from converters.int8.prepare import equalized, prepare

from .networks import SIGNED, answers_of, sqnr_db

FLAT = 1
"""The channel whose values are smaller than equalization will scale them up by."""

DEAD = 2


def noise(seed: int = 0, pictures: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (pictures, 12, 12, 3)).astype(np.float32)


def network(ceiling: float | None, seed: int = 0) -> keras.Model:
    """Two pairs in a row: convolution and depthwise, depthwise and depthwise behind a padding."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((12, 12, 3))
    x = layers.ReLU(ceiling, name="first")(layers.Conv2D(8, 3, 2, "same", name="conv")(image))
    x = layers.ReLU(ceiling, name="second")(layers.DepthwiseConv2D(3, padding="same", name="middle")(x))
    x = layers.ReLU(name="third")(layers.DepthwiseConv2D(3, 2, name="last")(layers.ZeroPadding2D(1)(x)))
    model = keras.Model(image, layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D()(x)))
    rng = np.random.default_rng(seed)
    for name in ("conv", "middle"):
        kernel, bias = model.get_layer(name).get_weights()
        factor = rng.uniform(0.2, 3, 8).astype(np.float32)
        factor[0] = 6
        if name == "conv":
            factor[FLAT], factor[DEAD] = 1e-3, 0
        bias = rng.normal(0.3, 0.2, 8).astype(np.float32) * factor
        if name == "conv":
            bias[DEAD] = -1
        kernel = kernel * (factor[:, np.newaxis] if name == "middle" else factor)
        model.get_layer(name).set_weights([kernel, bias])
    return fold(model)


def channels(model: keras.Model, x: np.ndarray, name: str) -> np.ndarray:
    """Largest value of each channel of a layer's answer."""
    largest: np.ndarray = answers_of(model, x)[name].max(axis=(0, 1, 2))
    return largest


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000))
def test_relu_keeps_the_function_on_every_picture(seed: int) -> None:
    """On pictures that equalization has not seen, and that reach further, too."""
    model = network(None, seed)
    others = noise(seed + 1) * 5
    expected = np.asarray(model(others))
    assert equalize(model, noise(seed)) == 2
    np.testing.assert_allclose(np.asarray(model(others)), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000))
def test_relu6_keeps_the_function_on_the_pictures_seen(seed: int) -> None:
    model = network(6.0, seed)
    expected = np.asarray(model(noise(seed)))
    assert equalize(model, noise(seed)) == 2
    np.testing.assert_allclose(np.asarray(model(noise(seed))), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("ceiling", [None, 6.0])
def test_channels_fill_the_range(ceiling: float | None) -> None:
    model = network(ceiling)
    before = {name: channels(model, noise(), name) for name in ("first", "second")}
    equalize(model, noise())
    for name, was in before.items():
        now, top = channels(model, noise(), name), was.max()
        assert now.max() == pytest.approx(top, rel=1e-5), "the range itself stays"
        alive = np.flatnonzero(was)
        gain = now[alive] / was[alive]
        wanted = np.clip(top / (was[alive] * HEADROOM), 1, LARGEST_GAIN)
        np.testing.assert_allclose(gain, wanted, rtol=1e-4)
        assert (gain > 1.5).sum() >= 3, "or this test says nothing"
    assert channels(model, noise(), "first")[FLAT] == pytest.approx(before["first"][FLAT] * LARGEST_GAIN, rel=1e-4)


def test_a_dead_channel_is_left_alone() -> None:
    model = network(6.0)
    was = model.get_layer("conv").get_weights(), model.get_layer("middle").get_weights()
    equalize(model, noise())
    (kernel, bias), (reader, _) = model.get_layer("conv").get_weights(), model.get_layer("middle").get_weights()
    np.testing.assert_array_equal(kernel[..., DEAD], was[0][0][..., DEAD])
    assert bias[DEAD] == was[0][1][DEAD] == -1
    assert np.isfinite(reader).all()


def test_relu6_has_headroom_for_what_was_not_seen() -> None:
    """What drives a scaled channel 9 % beyond what was seen is still answered as before; 12 % beyond would be cut."""
    model = network(6.0)
    was, bias = channels(model, noise(), "first"), model.get_layer("conv").get_weights()[1]
    equalize(model, noise())
    gain = model.get_layer("conv").get_weights()[1] / bias
    scaled = gain > 1
    assert was.max() == pytest.approx(6.0)
    assert (gain >= 1).all()
    assert (gain[scaled] * was[scaled] * 1.09 < 6.0).all()
    assert (gain[scaled] * was[scaled] * 1.12 > 6.0).sum() >= 3


def residual(x: Any) -> Any:
    y = layers.ReLU()(layers.Conv2D(3, 1)(x))
    return layers.DepthwiseConv2D(3, padding="same")(y) + y


PAIRS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "relu": (1, lambda x: layers.DepthwiseConv2D(3)(layers.ReLU()(layers.Conv2D(3, 1)(x)))),
    "fused relu": (1, lambda x: layers.DepthwiseConv2D(3)(layers.Conv2D(3, 1, activation="relu")(x))),
    "fused relu6": (1, lambda x: layers.DepthwiseConv2D(3)(layers.Conv2D(3, 1, activation="relu6")(x))),
    "multiplying reader": (
        1,
        lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2)(layers.ReLU()(layers.Conv2D(3, 1)(x))),
    ),
    "multiplying layer": (
        0,
        lambda x: layers.DepthwiseConv2D(3)(layers.ReLU()(layers.DepthwiseConv2D(3, depth_multiplier=2)(x))),
    ),
    "no activation": (0, lambda x: layers.DepthwiseConv2D(3)(layers.Conv2D(3, 1)(x))),
    "hard swish": (0, lambda x: layers.DepthwiseConv2D(3)(layers.Conv2D(3, 1, activation="hard_swish")(x))),
    "leaky relu": (0, lambda x: layers.DepthwiseConv2D(3)(layers.ReLU(negative_slope=0.1)(layers.Conv2D(3, 1)(x)))),
    "into a convolution": (0, lambda x: layers.Conv2D(3, 3)(layers.ReLU()(layers.Conv2D(3, 1)(x)))),
    "pooling between": (
        0,
        lambda x: layers.DepthwiseConv2D(3)(layers.AveragePooling2D(2)(layers.ReLU()(layers.Conv2D(3, 1)(x)))),
    ),
    "two readers": (0, residual),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_only_pairs_into_depthwise_are_equalized(pair: str) -> None:
    expected, make = PAIRS[pair]
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 12, 3))
    core = fold(keras.Model(image, make(image)))
    weights, answer = core.get_weights(), np.asarray(core(noise()))
    assert equalize(core, noise()) == expected
    changed = any((now != was).any() for now, was in zip(core.get_weights(), weights, strict=True))
    assert changed == bool(expected)
    np.testing.assert_allclose(np.asarray(core(noise())), answer, atol=1e-5)


def shared_layer(x: Any) -> Any:
    layer = layers.Conv2D(3, 3, padding="same")
    return layers.DepthwiseConv2D(3)(layers.ReLU()(layer(layers.ReLU()(layer(x)))))


def shared_reader(x: Any) -> Any:
    reader = layers.DepthwiseConv2D(3, padding="same")
    x = reader(layers.ReLU()(layers.Conv2D(3, 1)(x)))
    return reader(layers.ReLU()(layers.Conv2D(3, 1)(x)))


@pytest.mark.parametrize("make", [shared_layer, shared_reader])
def test_a_layer_that_is_called_twice_is_left_alone(make: Callable[[Any], Any]) -> None:
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 12, 3))
    core = fold(keras.Model(image, make(image)))
    expected = np.asarray(core(noise()))
    assert equalize(core, noise()) == 0
    np.testing.assert_allclose(np.asarray(core(noise())), expected, atol=1e-5)


def uneven_network() -> keras.Model:
    """Ahead of its depthwise layer one channel is 100 times as large as the others, which then have few levels."""
    keras.utils.set_random_seed(3)
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(16, 3, 2, "same", name="conv")(image)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(layers.ReLU()(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    model = keras.Model(image, layers.Dense(5, "softmax")(x))
    factor = np.r_[100, np.ones(15)].astype(np.float32)
    kernel, bias = model.get_layer("conv").get_weights()
    model.get_layer("conv").set_weights([kernel * factor, bias])
    kernel, bias = model.get_layer("depthwise").get_weights()
    model.get_layer("depthwise").set_weights([kernel / factor[:, np.newaxis], bias])
    return model


def test_small_channels_get_levels_of_their_own(images: np.ndarray, others: np.ndarray) -> None:
    prepared = prepare(uneven_network(), images, **SIGNED)
    assert prepared is not None
    state = equalized(prepared, images)
    assert state is not None
    gained = sqnr_db(prepared, state, others) - sqnr_db(prepared, prepared.start, others)
    assert gained > 6


def test_without_a_pair_nothing_is_equalized(images: np.ndarray) -> None:
    image = keras.Input((64, 64, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, 2, activation="relu")(image))
    prepared = prepare(keras.Model(image, layers.Dense(5, "softmax")(x)), images[:4], **SIGNED)
    assert prepared is not None
    assert equalized(prepared, images[:4]) is None
