"""GPTQ: nearer in what the layer answers than rounding to the nearest step, and on the same steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import layers

from converters.int8 import rounding
from converters.int8.arithmetic import kernel_scale, lifted, round_kernel
from converters.int8.rounding import DAMPING, gptq, gptq_depthwise

SEEDS = st.integers(0, 2**32 - 1)


def problem(seed: int, outputs: int = 6, inputs: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, a covariance of inputs that go together, and steps so coarse that rounding matters."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 1, (outputs, inputs))
    weights[:, 0] *= 30
    together = rng.normal(0, 1, (inputs, inputs // 3)) @ rng.normal(0, 1, (inputs // 3, 4 * inputs))
    samples = together + rng.normal(0, 0.3, together.shape)
    return weights, np.cov(samples), np.abs(weights).max(axis=1) / 127


def nearest(weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    whole: np.ndarray = np.rint(weights / scale[:, np.newaxis])
    return whole


def weighted_error(whole: np.ndarray, weights: np.ndarray, covariance: np.ndarray, scale: np.ndarray) -> float:
    """Mean square of what rounding does to the answers."""
    off = whole * scale[:, np.newaxis] - weights
    return float(np.einsum("oi,ij,oj->", off, covariance, off))


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_gptq_beats_the_nearest_step(seed: int) -> None:
    weights, covariance, scale = problem(seed)
    error = weighted_error(gptq(weights, covariance, scale), weights, covariance, scale)
    assert error < 0.9 * weighted_error(nearest(weights, scale), weights, covariance, scale)


@given(seed=SEEDS, inputs=st.integers(3, 140))
@settings(max_examples=20, deadline=None)
def test_the_result_is_whole_and_keeps_its_scale(seed: int, inputs: int) -> None:
    """Across the blocks of 64 columns, too."""
    weights, covariance, scale = problem(seed, inputs=inputs)
    whole = gptq(weights, covariance, scale)
    np.testing.assert_array_equal(whole, np.rint(whole))
    np.testing.assert_array_equal(np.abs(whole).max(axis=1), 127)
    assert whole.shape == weights.shape


def test_the_largest_weight_stays_at_127_where_others_would_pull_it_down() -> None:
    """Two inputs that go together: the second is rounded up by 0.45 steps, which the first takes up: 126.46 of 127."""
    weights = np.array([[1.0, 64.55 / 127]])
    scale = np.array([1 / 127])
    covariance = np.array([[1.0, 1.2], [1.2, 1.5]])
    plain = literal(weights, covariance, scale)
    assert np.abs(plain).max() < 127, "or this test says nothing"
    assert gptq(weights, covariance, scale)[0, 0] == 127
    assert gptq(-weights, covariance, scale)[0, 0] == -127
    depthwise = gptq_depthwise(weights, covariance[np.newaxis], scale)
    assert depthwise[0, 0] == 127


def literal(weights: np.ndarray, covariance: np.ndarray, scale: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """Optimal Brain Quantization in a fixed order, as in equations 2 and 3 of the GPTQ paper: no Cholesky, no blocks.

    Quantize a column; move the columns left by its error; then strike it from the inverse of the Hessian.
    """
    diagonal = np.diag(covariance)
    hessian = covariance + damping * diagonal.mean() * np.eye(len(covariance))
    order = sorted(range(len(covariance)), key=lambda i: -diagonal[i])
    rows = []
    for row in weights / scale[:, np.newaxis]:
        inverse = np.linalg.inv(hessian)
        now, whole = row.astype(np.float64), np.zeros(len(row))
        for i, column in enumerate(order):
            whole[column] = np.clip(np.rint(now[column]), -127, 127)
            error = (now[column] - whole[column]) / inverse[column, column]
            for other in order[i + 1 :]:
                now[other] -= error * inverse[column, other]
            inverse = inverse - np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
        rows.append(whole)
    return np.stack(rows)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_loop_of_the_paper(seed: int) -> None:
    weights, covariance, scale = problem(seed, outputs=3, inputs=18)
    whole = gptq(weights, covariance, scale)
    expected = rounding._with_scale_kept(literal(weights, covariance, scale), weights)
    assert (expected != nearest(weights, scale)).mean() > 0.1, "the errors must matter"
    np.testing.assert_array_equal(whole, expected)


def test_it_is_the_loop_of_the_paper_beyond_a_block() -> None:
    weights, covariance, scale = problem(1, outputs=2, inputs=rounding.BLOCK + 7)
    expected = rounding._with_scale_kept(literal(weights, covariance, scale), weights)
    np.testing.assert_array_equal(gptq(weights, covariance, scale), expected)


def test_more_damping_is_nearer_to_the_nearest_step() -> None:
    weights, covariance, scale = problem(3)
    moved = [(gptq(weights, covariance, scale, d) != nearest(weights, scale)).mean() for d in (0.01, 1.0, 1e6)]
    assert moved[0] > moved[1] > moved[2] == 0


def test_a_golden_row() -> None:
    """Worked out by hand. Damped, the covariance is [[2, 1], [1, 1]], its inverse [[1, -1], [-1, 2]].

    The first column: 10.4 -> 10, error 0.4, over the inverse's 1 it is 0.4; the second: 5.3 + 0.4 = 5.7 -> 6. The third
    has nothing to do with them.
    """
    damped = np.array([[2.0, 1, 0], [1, 1, 0], [0, 0, 0.5]])
    mean = np.diag(damped).mean() / (1 + DAMPING)  # of the diagonal before damping
    covariance = damped - DAMPING * mean * np.eye(3)
    whole = gptq(np.array([[10.4, 5.3, 127.0]]), covariance, np.ones(1))
    np.testing.assert_array_equal(whole, [[10, 6, 127]])


@given(seed=SEEDS, size=st.sampled_from([1, 9, 25]))
@settings(max_examples=30, deadline=None)
def test_depthwise_is_the_matrix_product_of_each_channel(seed: int, size: int) -> None:
    """In each channel's own order of taps, that is: here the variances fall from tap to tap."""
    rng = np.random.default_rng(seed)
    channels = 5
    weights = rng.normal(0, 1, (channels, size))
    covariances = []
    for _ in range(channels):
        covariance = np.cov(rng.normal(0, 1, (size, 2)) @ rng.normal(0, 1, (2, 300))) + 0.05 * np.eye(size)
        fall = np.sqrt(np.linspace(2, 1, size) / np.diag(covariance))
        covariances.append(covariance * fall * fall[:, np.newaxis])
    scale = np.abs(weights).max(axis=1) / 127
    together = gptq_depthwise(weights, np.stack(covariances), scale)
    for channel in range(channels):
        alone = gptq(weights[channel : channel + 1], covariances[channel], scale[channel : channel + 1])
        np.testing.assert_array_equal(together[channel], alone[0])


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_gptq_depthwise_beats_the_nearest_step(seed: int) -> None:
    """Over many channels; a single one may lose, where its largest weight is put back to 127."""
    rng, channels = np.random.default_rng(seed), 200
    weights = rng.normal(0, 1, (channels, 9))
    weights[:, 4] *= 20
    together = rng.normal(0, 1, (channels, 9, 3)) @ rng.normal(0, 1, (channels, 3, 200))
    covariances = np.stack([np.cov(samples) for samples in together + rng.normal(0, 0.2, together.shape)])
    scale = np.abs(weights).max(axis=1) / 127

    def error(whole: np.ndarray) -> float:
        off = whole * scale[:, np.newaxis] - weights
        return float(np.einsum("ci,cij,cj->", off, covariances, off))

    whole = gptq_depthwise(weights, covariances, scale)
    np.testing.assert_array_equal(whole, np.rint(whole))
    np.testing.assert_array_equal(np.abs(whole).max(axis=1), 127)
    assert error(whole) < 0.7 * error(nearest(weights, scale))


@pytest.mark.parametrize("kind", ["zeros", "one dead input", "rank one", "constant"])
def test_singular_covariances(kind: str) -> None:
    """A dead channel, fewer samples than inputs, a layer that sees nothing."""
    weights, covariance, scale = problem(5, inputs=20)
    if kind == "zeros":
        covariance = np.zeros((20, 20))
    elif kind == "one dead input":
        covariance[7], covariance[:, 7] = 0, 0
    elif kind == "rank one":
        covariance = np.outer(covariance[0], covariance[0])
    else:
        covariance = np.ones((20, 20))
    whole = gptq(weights, covariance, scale)
    np.testing.assert_array_equal(whole, np.rint(whole))
    assert np.abs(whole).max() == 127
    if kind == "zeros":
        np.testing.assert_array_equal(whole, nearest(weights, scale))
    if kind == "one dead input":
        np.testing.assert_array_equal(whole[:, 7], nearest(weights, scale)[:, 7])
    taps = gptq_depthwise(weights[:, :9], np.stack([covariance[:9, :9]] * 6), np.abs(weights[:, :9]).max(axis=1) / 127)
    np.testing.assert_array_equal(np.abs(taps).max(axis=1), 127)


def test_a_row_of_zeros_stays() -> None:
    weights, covariance, scale = problem(6)
    weights[2], scale[2] = 0, 1
    weights[3], scale[3] = 3e-43, 1  # none, to kernel_scale
    assert not gptq(weights, covariance, scale)[2:4].any()


# --- the grid that all weights lie on ---------------------------------------------------------------------------------

LAYERS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "convolution": (layers.Conv2D(5, 3), (3, 3, 4, 5), (0, 1, 2)),
    "depthwise": (layers.DepthwiseConv2D(3), (3, 3, 4, 1), (0, 1)),
    "depthwise multiplier": (layers.DepthwiseConv2D(3, depth_multiplier=2), (3, 3, 4, 2), (0, 1)),
    "dense": (layers.Dense(5), (7, 5), (0,)),
}
FLOATS = st.floats(-1e3, 1e3, width=32).map(lambda x: 0.0 if abs(x) < 1e-20 else x)


@pytest.mark.parametrize("kind", LAYERS)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_rounding_is_per_output_channel_and_idempotent(kind: str, data: st.DataObject) -> None:
    layer, shape, axes = LAYERS[kind]
    kernel = data.draw(arrays.arrays(np.float32, shape, elements=FLOATS))
    rounded = round_kernel(layer, kernel)
    step = np.abs(kernel).max(axis=axes, keepdims=True).astype(np.float64) / 127
    assert (np.abs(rounded - kernel) <= 0.50001 * step).all()
    np.testing.assert_allclose(rounded, np.rint(rounded / np.where(step == 0, 1, step)) * step, rtol=1e-6)
    np.testing.assert_array_equal(round_kernel(layer, rounded), rounded)


@given(seed=SEEDS, exponent=st.integers(-12, 4))
@settings(max_examples=100, deadline=None)
def test_what_gptq_rounds_is_on_the_grid(seed: int, exponent: int) -> None:
    """round_kernel finds the scale that the whole numbers were made for, to the last bit."""
    weights, covariance, _ = problem(seed, outputs=8, inputs=9)
    kernel = (weights.T * 10.0**exponent).astype(np.float32)
    layer = layers.Dense(8)
    scale = kernel_scale(layer, kernel)
    rounded = (gptq(kernel.T, covariance, scale.reshape(-1)).T * scale).astype(np.float32)
    np.testing.assert_array_equal(round_kernel(layer, rounded), rounded)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_channel_of_zeros(kind: str) -> None:
    layer, shape, _ = LAYERS[kind]
    assert not round_kernel(layer, np.zeros(shape, np.float32)).any()
    assert (kernel_scale(layer, np.zeros(shape, np.float32)) == 1).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_a_dead_channel_is_lifted_as_far_as_its_bias_needs(kind: str) -> None:
    """Of two channels with a bias, the one with weights of 1e-12 gets one weight; its bias then has 2^30 steps."""
    layer, shape, axes = LAYERS[kind]
    kernel = np.full(shape, 0.5, np.float32)
    channels = int(np.prod(shape[2:])) if len(axes) == 2 else shape[-1]
    flat = kernel.reshape(-1, channels)
    flat[:, 1] = 1e-12
    flat[:, 2] = 0
    bias = np.array([3.0, -4.0, 0.0, *[0.0] * (channels - 3)], np.float32)
    kept = kernel.copy()
    changed = lifted(layer, kernel, bias, np.float32(0.02)).reshape(-1, channels)
    np.testing.assert_array_equal(kernel, kept)
    np.testing.assert_array_equal(np.delete(changed, 1, axis=1), np.delete(flat, 1, axis=1))
    step = np.abs(changed[:, 1]).max() / 127
    assert abs(bias[1]) / (step * 0.02) == pytest.approx(2**30, rel=1e-3)
    assert np.count_nonzero(changed[:, 1] != flat[:, 1]) == 1


def test_a_healthy_kernel_is_not_copied() -> None:
    kernel = np.random.default_rng(0).normal(0, 1, (3, 3, 4, 5)).astype(np.float32)
    assert lifted(LAYERS["convolution"][0], kernel, np.ones(5, np.float32), np.float32(0.02)) is kernel
