"""Sensitivity: what each tensor's rounding costs alone; a layer made bad on purpose comes first."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from converters.int8 import arithmetic
from converters.int8.arithmetic import Range
from converters.int8.prepare import Prepared
from converters.int8.ranges import allowed
from converters.int8.sensitivity import Sensitivity, decibels, logits
from converters.int8.simulator import Simulator, State, weights_of

from .networks import float_scores, name_of, position

NO_NOISE = 200.0


@pytest.fixture(scope="module")
def before(mobile: Prepared, images: np.ndarray) -> dict[int, float]:
    return Sensitivity(mobile.simulator, mobile.start).alone(images[:8])


def worst(costs: dict[int, float]) -> int:
    return min(costs, key=lambda point: costs[point])


@pytest.mark.parametrize("name", ["down_relu", "deep", "pool"])
@pytest.mark.parametrize("mobile", ["dense"], indirect=True)
def test_a_huge_range_costs_most(mobile: Prepared, before: dict[int, float], images: np.ndarray, name: str) -> None:
    simulator, point = mobile.simulator, position(mobile.simulator, name)
    span = mobile.start.ranges[point]
    huge = allowed(simulator.kinds[point], span.low * 60, span.high * 60)
    now = Sensitivity(simulator, replace(mobile.start, ranges={**mobile.start.ranges, point: huge})).alone(images[:8])
    assert worst(before) != point
    assert worst(now) == point
    assert now[point] < before[point] - 15
    same = [other for other in before if other != point]
    assert [now[other] for other in same] == pytest.approx([before[other] for other in same], abs=1e-6)


@pytest.mark.parametrize("mobile", ["dense"], indirect=True)
def test_a_layer_with_one_huge_weight_a_channel_costs_most(mobile: Prepared, images: np.ndarray) -> None:
    weights = dict(mobile.start.weights)
    kernel, bias = weights["narrow"]
    kernel = kernel.copy()
    kernel[0, 0, 7] *= 300  # which leaves its neighbours no steps
    weights["narrow"] = (kernel, bias)
    before = Sensitivity(mobile.simulator, mobile.start).layers_alone(images[:8])
    now = Sensitivity(mobile.simulator, replace(mobile.start, weights=weights)).layers_alone(images[:8])
    assert min(before, key=lambda name: before[name]) != "narrow"
    assert min(now, key=lambda name: now[name]) == "narrow"
    assert list(now) == list(mobile.start.weights)


@pytest.mark.parametrize("mobile", ["dense"], indirect=True)
def test_a_cost_is_that_of_the_float_network_with_one_tensor_rounded(mobile: Prepared, images: np.ndarray) -> None:
    """Reckoned again by hand, for the last tensor and the last layer."""
    simulator, few = mobile.simulator, images[:8]
    told: list[tuple[int, int]] = []
    costs = Sensitivity(simulator, mobile.start).alone(few, lambda done, of: told.append((done, of)))
    assert [*costs, position(simulator, "scores")] == list(simulator.points)
    assert told == [(i, len(costs)) for i in range(1, len(costs) + 1)]
    true = logits(float_scores(mobile, few))
    point = position(simulator, "features")
    scale = float(mobile.start.ranges[point].scale)
    kernel, bias = mobile.start.weights["scores"]
    features = keras.Model(simulator.core.input, simulator.core.get_layer("scores").input)(simulator.read(few))
    rough = np.rint(np.asarray(features) / scale) * scale @ kernel + bias
    assert costs[point] == pytest.approx(decibels(true, rough - rough.mean(axis=1, keepdims=True)), abs=0.05)
    layer = simulator.core.get_layer("scores")
    rough = np.asarray(features) @ arithmetic.round_kernel(layer, kernel)
    rough = rough + bias
    by_layer = Sensitivity(simulator, mobile.start).layers_alone(few)
    assert by_layer["scores"] == pytest.approx(decibels(true, rough - rough.mean(axis=1, keepdims=True)), abs=0.05)


def test_what_is_on_its_grid_costs_nothing() -> None:
    """A picture in whole numbers, weights of powers of two: rounding changes neither, and there is no noise at all."""
    image = keras.Input((8, 8, 3))
    x = layers.ReLU(name="relu")(layers.Conv2D(4, 1, name="whole")(image))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    core = keras.Model(image, layers.Softmax()(layers.Dense(3, name="scores")(x)))
    rng = np.random.default_rng(0)
    core.get_layer("whole").set_weights([rng.choice([-1.0, 1.0], (1, 1, 3, 4)), np.zeros(4)])
    core.get_layer("scores").set_weights([rng.normal(0, 0.02, (4, 3)), np.zeros(3)])
    simulator = Simulator(core, [1, 2, 3], 1.0, 0)
    state = State(weights_of(core), {1: Range(0.0, 255.0), 2: Range(0.0, 200.0), 3: Range(-9.0, 9.0)})
    assert [name_of(simulator, point) for point in simulator.points] == ["relu", "mean", "scores"]
    sensitivity = Sensitivity(simulator, state)
    pictures = rng.integers(0, 80, (4, 8, 8, 3), dtype=np.uint8)
    points, by_layer = sensitivity.alone(pictures), sensitivity.layers_alone(pictures)
    assert points[1] == NO_NOISE
    assert by_layer["whole"] == NO_NOISE
    assert points[2] < 80
    assert by_layer["scores"] < 80


def test_decibels() -> None:
    true = np.array([[3.0, -4.0]])
    assert decibels(true, true) == NO_NOISE
    assert decibels(true, true * 1.1) == pytest.approx(20)
    assert decibels(true, true * 0) == pytest.approx(0)
    assert decibels(true, -true * 9) == pytest.approx(-20)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=8))
def test_logits_are_recovered_but_for_a_shift(raw: list[float]) -> None:
    row = np.array([raw])
    scores = np.exp(row - row.max())
    scores /= scores.sum()
    np.testing.assert_allclose(logits(scores), row - row.mean(), atol=1e-9)


def test_a_probability_of_zero_is_no_infinity() -> None:
    assert np.isfinite(logits(np.array([[1.0, 0.0]], np.float32))).all()
