"""Copies of channels in idle ones: the same function, rounding errors an n-th as large, in both files alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from converters.int8 import copies, prepare, simulator
from converters.int8.arithmetic import Range
from converters.int8.clipping import cheapest
from converters.int8.correct import METHODS, correct
from converters.int8.prepare import Copied, Prepared
from converters.int8.sensitivity import decibels, logits
from converters.int8.simulator import State
from tests.converters.in_onnx import opened

from .networks import DEAD, SIGNED, STILL, WANDERING, WIDTH, answers_of, chain_network, file_scores, position


@pytest.fixture(scope="module")
def prepared(images: np.ndarray) -> Prepared:
    found = prepare.prepare(chain_network(), images, **SIGNED)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def channels(prepared: Prepared, images: np.ndarray) -> dict[int, np.ndarray]:
    return cheapest(prepared, prepared.start, images).channels


@pytest.fixture(scope="module", params=[False, True], ids=["as it is", "wider"])
def copied(request: pytest.FixtureRequest, prepared: Prepared, channels: dict[int, np.ndarray]) -> Copied:
    found = prepare.copied(prepared, prepared.start, channels, wider=request.param)
    assert found is not None
    assert found.wider == request.param
    return found


def groups(found: Copied) -> list[list[int]]:
    """Channels of "first" that hold the same but for a part of a step, where there are two or more."""
    kernel, _ = found.state.weights["first"]
    columns = kernel.reshape(-1, kernel.shape[-1]).T
    same = [
        np.flatnonzero((columns == column).all(axis=1) & bool(np.abs(column).max() > 0)).tolist() for column in columns
    ]
    return [list(one) for one in {tuple(group) for group in same if len(group) > 1}]


def float_answers(found: Prepared, state: State, images: np.ndarray) -> dict[str, np.ndarray]:
    simulator.write_weights(found.simulator.core, state.weights)
    return answers_of(found.simulator.core, found.simulator.read(images))


def test_the_function_is_the_same(prepared: Prepared, copied: Copied, others: np.ndarray) -> None:
    """On pictures that nothing was calibrated on, at borders behind a padding, too."""
    expected = float_answers(prepared, prepared.start, others[:30])
    told = float_answers(copied.prepared, copied.state, others[:30])
    np.testing.assert_allclose(told["mix"], expected["mix"], atol=2e-4 * np.abs(expected["mix"]).max())
    np.testing.assert_allclose(told["scores"], expected["scores"], atol=1e-3)


def test_idle_is_what_no_image_can_change(copied: Copied) -> None:
    """Two channels that nothing moves, and what kernels have room for; not one that merely was not seen to move."""
    kernel, _ = copied.state.weights["first"]
    places = {channel for group in groups(copied) for channel in group}
    assert {DEAD, STILL} <= places
    assert WANDERING not in places
    assert kernel.shape[-1] == (copies.TILE if copied.wider else WIDTH)
    assert set(range(WIDTH, kernel.shape[-1])) <= places
    assert copied.count == kernel.shape[-1] - WIDTH + 2


def test_idle_is_measured_by_the_step_of_the_tensor_that_is_read(
    prepared: Prepared, channels: dict[int, np.ndarray]
) -> None:
    """However coarse the tensor ahead of it is."""
    coarse = {**prepared.start.ranges, position(prepared.simulator, "first_relu"): Range(0.0, 1e5)}
    found = prepare.copied(prepared, replace(prepared.start, ranges=coarse), channels, wider=False)
    assert found is not None
    assert found.count == 2, "nothing but the dead channel and the one that stands still is idle"


def test_what_an_idle_channel_held_is_not_lost(prepared: Prepared, copied: Copied, images: np.ndarray) -> None:
    """The depthwise layer makes 2.5 of the dead channel: its share of the answer goes into the bias."""
    before = float_answers(prepared, prepared.start, images[:4])["single_relu"][..., DEAD]
    np.testing.assert_allclose(before, 2.5, atol=1e-6)
    kernel, bias = prepared.start.weights["mix"]
    np.testing.assert_allclose(copied.state.weights["mix"][1], bias + 2.5 * kernel[0, 0, DEAD], atol=1e-5)


def test_n_copies_round_to_an_nth_of_a_step(copied: Copied, others: np.ndarray) -> None:
    """Of a step and of nothing else: single copies are off by half a step."""
    found, images = copied.prepared.simulator, others[:8]
    at = position(found, "first_relu")
    kept = replace(copied.state)
    stored = found.answered(images, kept)[at]
    true = float_answers(copied.prepared, copied.state, images)["first_relu"]
    step = float(copied.state.ranges[at].scale)
    assert groups(copied)
    for group in groups(copied):
        rounded_weights = np.abs(stored[..., group] - true[..., group]).max() - step / 2
        error = np.abs(stored[..., group].mean(axis=-1) - true[..., group].mean(axis=-1)).max()
        assert error < step / 2 / len(group) + max(rounded_weights, 0) + 1e-5
        assert np.abs(stored[..., group[0]] - true[..., group[0]]).max() > 0.4 * step


@pytest.mark.parametrize("name", ["first_relu", "single_relu"])
def test_copies_are_parts_of_a_step_apart_in_both_tensors(copied: Copied, images: np.ndarray, name: str) -> None:
    """Each tensor's own step; behind the padding they need not be, where less is added up."""
    answers = float_answers(copied.prepared, copied.state, images[:4])[name][:, :-1, :-1]
    step = float(copied.state.ranges[position(copied.prepared.simulator, name)].scale)
    for group in groups(copied):
        apart = answers[..., group] - answers[..., group].mean(axis=-1, keepdims=True)
        parts = np.broadcast_to(copies._parts(len(group)) * step, apart.shape)
        np.testing.assert_allclose(np.sort(apart), parts, atol=0.02 * step)


def test_a_copy_goes_where_noise_falls_most() -> None:
    """With the square of the copies: a second place for 16 saves 12, a third 2.22; a second one for 3 saves 2.25."""
    assert copies._places(np.array([16.0, 3.0, 0.0, 0.0]), [2, 3]) == {0: [0, 2], 1: [1, 3]}
    assert copies._places(np.array([16.0, 2.9, 0.0, 0.0]), [2, 3]) == {0: [0, 2, 3]}
    assert copies._places(np.zeros(3), [2]) == {}


@settings(max_examples=60, deadline=None)
@given(value=st.floats(0.5, 250), count=st.integers(1, 16))
def test_parts_of_a_step_lie_evenly(value: float, count: int) -> None:
    parts = copies._parts(count)
    assert parts.sum() == pytest.approx(0, abs=1e-9)
    assert abs(np.rint(value + parts).mean() - value) <= 0.5 / count + 1e-9


def test_what_reads_the_copies_sees_less_noise(
    prepared: Prepared, copied: Copied, images: np.ndarray, others: np.ndarray
) -> None:
    """In float weights: its own rounding is another matter."""
    noise = []
    for one, state in ((prepared, prepared.start), (copied.prepared, copied.state)):
        expected = float_answers(one, state, others)["single_relu"]
        rounded = correct(one.simulator, state, images, METHODS[0])
        error = one.simulator.answered(others, rounded)[position(one.simulator, "single_relu")] - expected
        seen = (error.reshape(-1, error.shape[-1]) @ state.weights["mix"][0][0, 0]).std(axis=0)
        noise.append(float(np.square(seen).mean()))
    assert noise[0] / noise[1] > (1.7 if copied.wider else 1.1)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000))
def test_no_image_leaves_the_bounds(prepared: Prepared, seed: int) -> None:
    """Noise, flat pictures and checkerboards reach far: what is stored lies between, always."""
    rng = np.random.default_rng(seed)
    flat = np.broadcast_to(rng.integers(0, 256, (3,)), (64, 64, 3))
    board = 255 * (np.indices((64, 64)).sum(0) // int(rng.integers(1, 4)) % 2)[..., np.newaxis] * np.ones(3)
    images = np.stack([rng.integers(0, 256, (64, 64, 3)), flat, board]).astype(np.uint8)
    told = float_answers(prepared, prepared.start, images)
    for at, (low, high) in copies.bounds(prepared.simulator, prepared.start).items():
        name = prepared.simulator.steps[at].operation.name
        if name not in ("first_relu", "single_relu"):
            continue
        span = prepared.start.ranges[at]
        held = np.clip(told[name], span.low, span.high).reshape(-1, len(low))
        assert (held >= low - 1e-4).all()
        assert (held <= high + 1e-4).all()


def test_both_files_answer_as_the_simulator(copied: Copied, images: np.ndarray, others: np.ndarray) -> None:
    one, state = copied.prepared, correct(copied.prepared.simulator, copied.state, images, METHODS[0])
    one.simulator.load(state)
    foretold = one.simulator.scores(others[:20])
    tflite = prepare.Writer(one, state, images).tflite(state).flatbuffer
    assert decibels(logits(foretold), logits(file_scores(tflite, others[:20]))) > 50
    session = opened(prepare.onnx(one, state, images, {}).onnx)
    name = session.get_inputs()[0].name
    told = np.concatenate([np.asarray(session.run(None, {name: image[np.newaxis]})[0]) for image in others[:20]])
    assert decibels(logits(foretold), logits(told)) > 35  # its classifier rounds what it reads


def test_without_idle_channels_or_chains_there_is_nothing_to_copy(
    coarse: Prepared, mobile: Prepared, images: np.ndarray
) -> None:
    """Of the coarse network no depthwise layer is read by a pointwise one; the other has a gate in between."""
    for one in (coarse, mobile):
        assert copies.chains(one.simulator) == []
        assert prepare.copied(one, one.start, cheapest(one, one.start, images).channels, wider=True) is None


def test_a_tensor_that_others_read_is_left_alone(images: np.ndarray) -> None:
    def chained(more: Any) -> list[copies.Chain]:
        image = keras.Input((16, 16, 3))
        x = first = layers.ReLU(name="relu")(layers.Conv2D(8, 3, 2, "same", name="conv")(image))
        x = layers.ReLU(name="relu2")(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x))
        x = layers.Conv2D(8, 1, name="pointwise")(x)
        x = layers.GlobalAveragePooling2D()(layers.ReLU()(more(x, first)))
        found = prepare.prepare(keras.Model(image, layers.Dense(4, "softmax")(x)), images[:4, :16, :16], **SIGNED)
        assert found is not None
        return copies.chains(found.simulator)

    assert [chain.layer for chain in chained(lambda x, _: x)] == ["conv"]
    assert chained(lambda x, first: layers.Add()([x, first])) == []
