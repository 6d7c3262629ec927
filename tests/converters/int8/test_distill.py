"""Distillation: some steps bring the network nearer to the float one, and what it hands back is on every grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converters.int8 import arithmetic, islands
from converters.int8.arithmetic import Range
from converters.int8.distill import distill
from converters.int8.prepare import Prepared
from converters.int8.ranges import allowed
from converters.int8.simulator import State

from .networks import DEAD_CHANNEL, is_aligned, name_of, position, sqnr_db

DENSE = pytest.mark.parametrize("mobile", ["dense"], indirect=True)


def rounded(prepared: Prepared, state: State) -> State:
    layer = prepared.simulator.core.get_layer
    weights = {name: (arithmetic.round_kernel(layer(name), k), b) for name, (k, b) in state.weights.items()}
    return replace(state, weights=weights)


def distilled(prepared: Prepared, start: State, images: np.ndarray, steps: int, seed: int = 0) -> State:
    return distill(prepared.simulator, start, prepared.start.weights, images, steps=steps, seed=seed)


def test_coarse_weights_are_mended(coarse: Prepared, images: np.ndarray, others: np.ndarray) -> None:
    """Whose answers come nearer on pictures that were not trained on."""
    start = rounded(coarse, coarse.start)
    end = distilled(coarse, start, images, 25)
    assert sqnr_db(coarse, end, others) > sqnr_db(coarse, start, others) + 2


@pytest.mark.parametrize(("factor", "grows"), [(0.5, True), (8.0, False)], ids=["too narrow", "too wide"])
def test_a_badly_chosen_range_is_mended(
    coarse: Prepared, images: np.ndarray, others: np.ndarray, factor: float, grows: bool
) -> None:
    """With weights that are as good as they were: it is the range that moves."""
    point = position(coarse.simulator, "depthwise0_relu")
    seen = coarse.start.ranges[point]
    bad = Range(seen.low, seen.high * factor)
    start = replace(coarse.start, ranges={**coarse.start.ranges, point: bad})
    end = distilled(coarse, start, images, 25)
    moved = end.ranges[point].high / bad.high
    assert moved > 1.02 if grows else moved < 0.98
    assert sqnr_db(coarse, end, others) > sqnr_db(coarse, start, others) + 1


def test_the_seed_decides_all(coarse: Prepared, images: np.ndarray) -> None:
    first, again, other = (distilled(coarse, coarse.start, images, 3, seed) for seed in (5, 5, 6))
    assert first.ranges == again.ranges != other.ranges
    for name, (kernel, bias) in first.weights.items():
        np.testing.assert_array_equal(kernel, again.weights[name][0])
        np.testing.assert_array_equal(bias, again.weights[name][1])
    assert any((kernel != other.weights[name][0]).any() for name, (kernel, _) in first.weights.items())


@DENSE
def test_no_step_changes_nothing(mobile: Prepared, images: np.ndarray) -> None:
    start = rounded(mobile, mobile.start)
    end = distilled(mobile, start, images, 0)
    assert end.kept_float == start.kept_float
    for point, span in start.ranges.items():
        assert (end.ranges[point].low, end.ranges[point].high) == pytest.approx((span.low, span.high), rel=1e-6)
    for name, (kernel, bias) in start.weights.items():
        np.testing.assert_array_equal(end.weights[name][0], kernel)
        np.testing.assert_array_equal(end.weights[name][1], bias)


@DENSE
def test_everything_stays_on_its_grid(mobile: Prepared, images: np.ndarray) -> None:
    simulator = mobile.simulator
    kept = islands.of_layers(simulator, ["trunk", "squeeze"])
    start = replace(mobile.start, kept_float=kept)
    told: list[tuple[int, int]] = []
    end = distill(
        simulator,
        start,
        mobile.start.weights,
        images,
        steps=6,
        progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(i, 6) for i in range(1, 7)]
    assert end.kept_float == kept
    for name, (kernel, bias) in end.weights.items():
        layer, was = simulator.core.get_layer(name), start.weights[name]
        on_grid = (arithmetic.round_kernel(layer, kernel) == kernel).all()
        assert on_grid == (name not in ("trunk", "squeeze")), name
        assert (kernel != was[0]).any()
        assert (bias != was[1]).any(), name
    np.testing.assert_array_equal(
        end.weights["wide"][0][..., DEAD_CHANNEL],
        arithmetic.round_kernel(simulator.core.get_layer("wide"), start.weights["wide"][0])[..., DEAD_CHANNEL],
    )
    moved = set()
    for point, span in end.ranges.items():
        kind, was = simulator.kinds[point], start.ranges[point]
        if span != was:
            moved.add(kind)
        if kind == "swish":
            assert span == allowed("swish", span.low, span.high)
            assert -span.zero * float(span.scale) == pytest.approx(-3, rel=1e-6)
        if kind in ("gate", "opening", "scores"):
            assert span == was, name_of(simulator, point)
        assert span.low <= 0 < span.high
    assert "free" in moved
    assert is_aligned(mobile, end)


@DENSE
def test_the_range_of_a_hard_swish_moves_along_its_lattice(mobile: Prepared, images: np.ndarray) -> None:
    """Far too narrow, it widens: from one number of levels below zero to the next."""
    point = position(mobile.simulator, "deep")
    start = replace(mobile.start, ranges={**mobile.start.ranges, point: allowed("swish", -3, 3.0)})
    end = distilled(mobile, start, images, 25)
    assert end.ranges[point].high > start.ranges[point].high
    assert end.ranges[point].zero < start.ranges[point].zero
    assert end.ranges[point] == allowed("swish", -3, end.ranges[point].high)


def test_fewer_pictures_than_a_batch(coarse: Prepared, images: np.ndarray) -> None:
    end = distilled(coarse, coarse.start, images[:5], 2)
    assert all(np.isfinite(kernel).all() and np.isfinite(bias).all() for kernel, bias in end.weights.values())
