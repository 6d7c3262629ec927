"""Bias correction: what it promises of means, and that the file it leads to is nearer to the float network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from converters import to_tflite
from converters.bias_correction import correct_biases, round_to_8_bits

from .test_to_tflite import SIGNED, answers, reference, sqnr_db


def coarse_network() -> keras.Model:
    """Few channels with one large weight each: 8 bits leave little for the others, as in narrow networks."""
    keras.utils.set_random_seed(7)
    image = keras.Input((64, 64, 3))
    x = image
    for filters, strides in ((8, 2), (8, 1), (16, 2)):
        x = layers.Conv2D(filters, 3, strides, "same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU(6.0)(x)
        x = layers.DepthwiseConv2D(3, padding="same")(x)
        x = layers.ReLU(6.0)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, layers.Dense(6, activation="softmax")(x))
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            kernel = np.asarray(layer.kernel).copy()
            kernel[1, 1] += rng.choice([-1, 1], kernel.shape[2:]) * np.abs(kernel).max() * 6
            layer.kernel.assign(kernel)
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(2, 4, layer.moving_variance.shape))
    model.layers[-1].kernel.assign(np.asarray(model.layers[-1].kernel) * 3)
    return model


def with_rounded_weights(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
            layer.kernel.assign(round_to_8_bits(layer, np.asarray(layer.kernel)))
    return copy


def test_the_mean_of_every_layer_is_restored(images: np.ndarray) -> None:
    model = coarse_network()
    before = model.get_weights()
    corrected = correct_biases(model, images[:16], **SIGNED)
    for kept, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kept, was)
    x = images[:16].astype(np.float32) * np.float32(SIGNED["scale"]) + np.float32(SIGNED["offset"])

    def means(network: keras.Model) -> list[np.ndarray]:
        norms = [layer.output for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
        return [np.asarray(tap).mean(axis=(0, 1, 2)) for tap in keras.Model(network.input, norms)(x)]

    true = means(model)
    rounded = means(with_rounded_weights(model))
    mended = means(with_rounded_weights(corrected))
    off = max(np.abs(a - b).max() for a, b in zip(true, rounded, strict=True))
    left = max(np.abs(a - b).max() for a, b in zip(true, mended, strict=True))
    assert off > 1e-3, "rounding must shift some mean, or this test says nothing"
    assert left < 0.02 * off


def test_weights_stay(core: Any, images: np.ndarray) -> None:
    corrected = correct_biases(core, images[:8], **SIGNED)
    for layer, other in zip(core.layers, corrected.layers, strict=True):
        if hasattr(layer, "kernel"):
            np.testing.assert_array_equal(np.asarray(layer.kernel), np.asarray(other.kernel))


def test_what_a_shift_cannot_enter_is_left_alone(images: np.ndarray) -> None:
    """A layer called twice, and an activation between a convolution and its batch normalization."""
    image = keras.Input((64, 64, 3))
    twice = layers.Conv2D(3, 3, padding="same", name="twice")
    x = layers.Conv2D(4, 3, use_bias=False, activation="relu", name="early")(twice(twice(image)))
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization(name="late")(x))
    model = keras.Model(image, layers.Dense(2, activation="softmax", name="head")(x))
    corrected = correct_biases(model, images[:4], **SIGNED)
    for name in ("twice", "early", "late"):
        assert corrected.get_layer(name) is model.get_layer(name)
    assert corrected.get_layer("head") is not model.get_layer("head")


def test_a_real_narrow_network_gains_7_db(data: Path) -> None:
    """V1-0.25, a genuine float network: 13 dB plain, 21 dB corrected, on photographs the correction has not seen."""
    model = keras.applications.MobileNet(alpha=0.25, weights=None)
    model.load_weights(data / "models" / "mobilenet_v1_0.25_224.h5")

    def photographs(folder: str) -> np.ndarray:
        files = sorted((data / "imagenet" / folder).glob("*/*.png"))[::5][:40]
        return np.stack([np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files])

    seen, unseen = photographs("calibration"), photographs("validation")
    expected = reference(model, unseen, **SIGNED)
    found = []
    for network in (model, correct_biases(model, seen, **SIGNED)):
        file = to_tflite.quantize(to_tflite.trace(network), [seen], **SIGNED).flatbuffer
        found.append(sqnr_db(expected, answers(file, unseen)))
    assert found[1] > found[0] + 5
    assert found[1] > 18


@pytest.mark.parametrize("axis", ["conv", "depthwise", "dense"])
def test_rounding_is_per_output_channel(axis: str) -> None:
    layer = {"conv": layers.Conv2D(4, 3), "depthwise": layers.DepthwiseConv2D(3), "dense": layers.Dense(4)}[axis]
    layer.build((None, 5) if axis == "dense" else (None, 8, 8, 5))
    kernel = np.asarray(layer.kernel)
    rounded = round_to_8_bits(layer, kernel)
    channels = -2 if axis == "depthwise" else -1
    for channel in range(kernel.shape[channels]):
        own, grid = np.take(kernel, channel, channels), np.take(rounded, channel, channels)
        step = np.abs(own).max() / 127
        np.testing.assert_allclose(grid / step, np.round(own / step), atol=1e-3)
