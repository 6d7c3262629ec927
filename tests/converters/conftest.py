"""Networks that several converter tests share: made once a session."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

SIZE = 64
CLASSES = 11


def pictures() -> np.ndarray:
    """Pictures with structure (noise alone excites a network evenly): uint8 [24, 64, 64, 3]."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    waves = [np.sin(2 * np.pi * (a * x + b * y + c))[..., None] for a, b, c in rng.uniform(0, 3, (24, 3))]
    colours = rng.uniform(0, 127, (24, 1, 1, 3))
    return np.clip(128 + np.stack(waves) * colours + rng.normal(0, 12, (24, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return pictures()


def network(family: str) -> Any:
    """A small network whose activations are alive and which tells pictures apart."""
    import keras

    makers = {
        "v1": keras.applications.MobileNet,
        "v2": keras.applications.MobileNetV2,
        "v3": keras.applications.MobileNetV3Small,
    }
    keras.utils.set_random_seed(3)
    extra = {"include_preprocessing": False} if family == "v3" else {}
    model = makers[family](
        input_shape=(SIZE, SIZE, 3), alpha=0.5 if family != "v2" else 0.35, weights=None, classes=CLASSES, **extra
    )
    # As if trained: every batch normalization has seen the pictures, so that activations keep their size to the end.
    rng = np.random.default_rng(4)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            layer.beta.assign(rng.normal(0, 0.5, layer.beta.shape))
    model(pictures() / np.float32(127.5) - 1, training=True)
    head = model.layers[-1] if model.layers[-1].weights else model.layers[-3]
    head.kernel.assign(head.kernel * 2)
    return model


@pytest.fixture(scope="session", params=["v1", "v2", "v3"])
def core(request: pytest.FixtureRequest) -> Any:
    """One network of each generation."""
    return network(request.param)
