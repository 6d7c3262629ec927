"""Networks in their simulators: made once a session. Whoever uses one loads the state that it needs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from converters.int8.prepare import Prepared, prepare

from .networks import SIGNED, as_if_trained, coarse_network, mobile_network


@pytest.fixture(scope="session")
def coarse(images: np.ndarray) -> Prepared:
    prepared = prepare(coarse_network(), images, **SIGNED)
    assert prepared is not None
    return prepared


@pytest.fixture(scope="session", params=["convolution", "dense"])
def mobile(request: pytest.FixtureRequest, images: np.ndarray) -> Prepared:
    """With each kind of classifier."""
    keras.utils.set_random_seed(11)
    prepared = prepare(as_if_trained(mobile_network(request.param), images), images, **SIGNED)
    assert prepared is not None
    return prepared


@pytest.fixture(scope="session")
def others(images: np.ndarray) -> np.ndarray:
    """160 pictures that nothing was calibrated on: turned, mirrored and inverted ones."""
    turned = [np.rot90(images, turn, (1, 2)) for turn in (1, 2, 3)]
    mirrored = [one[:, ::-1] for one in (images, *turned)]
    every = np.concatenate([*turned, *mirrored])
    return np.ascontiguousarray(np.concatenate([every, 255 - every])[:160])
