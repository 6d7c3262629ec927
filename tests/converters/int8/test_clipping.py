"""Narrower ranges: each way finds the range that it promises, and leaves alone what has no choice."""

from __future__ import annotations

import numpy as np
import pytest

from converters.int8 import arithmetic, clipping
from converters.int8.arithmetic import Range
from converters.int8.prepare import Prepared
from converters.int8.simulator import State, write_weights

from .networks import position

BY_WAY = pytest.mark.parametrize("way", clipping.WAYS, ids=lambda way: way.name)
pytestmark = pytest.mark.parametrize("mobile", ["dense"], indirect=True)


def values(prepared: Prepared, images: np.ndarray) -> dict[int, np.ndarray]:
    """What the float network holds at each point."""
    import keras

    from converters.int8 import graph

    simulator, found = prepared.simulator, {}
    write_weights(simulator.core, prepared.start.weights)

    def call(node: object, *args: object, **kwargs: object) -> object:
        y = node.operation(*args, **kwargs)  # type: ignore[attr-defined]
        found[simulator.position[id(node)]] = np.asarray(y)
        return y

    graph.run(simulator.core, keras.ops.convert_to_tensor(simulator.read(images)), call)
    return {point: found[point] for point in simulator.points}


def squared_error(held: np.ndarray, span: Range) -> float:
    return float(np.square(np.asarray(arithmetic.round_real(held, span)) - held).sum())


@BY_WAY
def test_ranges_become_narrower_and_nothing_else_changes(
    mobile: Prepared, images: np.ndarray, way: clipping.Way
) -> None:
    state: State = way.narrowed(mobile, mobile.start, clipping.Values(mobile, mobile.start, images))
    assert state.weights is mobile.start.weights
    assert state.ranges.keys() == mobile.start.ranges.keys()
    narrower = 0
    for point, span in state.ranges.items():
        wide = mobile.start.ranges[point]
        if mobile.simulator.kinds[point] not in ("free", "swish"):
            assert span == wide
        assert span.low >= wide.low - 1e-6
        assert span.high <= wide.high * (1 + 1e-6)
        narrower += span.high < 0.999 * wide.high
    assert narrower > len(state.ranges) / 4


@pytest.mark.parametrize("tail", [1e-2, 1e-3])
def test_a_percentile_leaves_out_its_share(mobile: Prepared, images: np.ndarray, tail: float) -> None:
    state = clipping.percentile(mobile, mobile.start, clipping.Values(mobile, mobile.start, images), tail)
    simulator, held = mobile.simulator, values(mobile, images[:: -(-len(images) // clipping.IMAGES)])
    judged = 0
    for point in set(simulator.points) - simulator.float_points():
        if simulator.kinds[point] == "free":
            wide, span = mobile.start.ranges[point], state.ranges[point]
            edge = span.high + (wide.high - wide.low) / clipping.BINS  # a value next to an edge counts as either bin's
            above = float((held[point] > edge).mean())
            bin_share = np.histogram(held[point], clipping.BINS)[0].max() / held[point].size
            assert above <= tail + 1e-6
            assert above >= tail - 3 * bin_share or span.high == wide.high
            judged += 1
    assert judged > 5


def test_a_percentile_that_would_leave_out_no_value_leaves_the_range(mobile: Prepared, images: np.ndarray) -> None:
    """Two images hold less than all did; that says nothing where a tail is less than one of their values."""
    few = clipping.Values(mobile, mobile.start, images[:2])
    assert clipping.percentile(mobile, mobile.start, few, 1e-9).ranges == mobile.start.ranges
    narrowed = clipping.percentile(mobile, mobile.start, few, 1e-3).ranges
    pool = position(mobile.simulator, "pool")
    assert narrowed[pool] == mobile.start.ranges[pool], "40 values an image"
    assert narrowed != mobile.start.ranges


def test_least_squares_errs_less_than_what_was_seen(mobile: Prepared, images: np.ndarray) -> None:
    state = clipping.least_squares(mobile, mobile.start, clipping.Values(mobile, mobile.start, images))
    held = values(mobile, images[:: -(-len(images) // clipping.IMAGES)])
    changed = [p for p, span in state.ranges.items() if span != mobile.start.ranges[p]]
    changed = [p for p in changed if mobile.simulator.kinds[p] == "free"]
    assert changed
    errors = np.array([[squared_error(held[p], s.ranges[p]) for s in (mobile.start, state)] for p in changed])
    assert (errors[:, 1] < errors[:, 0] * 1.2).all(), "rounding costs a twelfth of a step squared on average alone"
    assert errors[:, 1].sum() < 0.95 * errors[:, 0].sum()


def test_one_image_that_reaches_far_counts_for_its_share_alone(mobile: Prepared, images: np.ndarray) -> None:
    """The mean of 9 images' extremes and one that is brighter lies a tenth of the way."""
    alike = np.repeat(images[:1], 10, axis=0)
    alike[0] = np.clip(alike[0].astype(np.int64) * 3, 0, 255)
    seen = mobile.simulator.seen(alike)
    state = clipping.averaged(mobile, mobile.start, clipping.Values(mobile, mobile.start, alike))
    point = next(
        p
        for p in sorted(seen)
        if mobile.simulator.kinds[p] == "free" and p not in mobile.simulator.float_points() and seen[p][0, 1] > 0
    )
    expected = (seen[point][0, 1] + 9 * seen[point][1, 1]) / 10
    assert state.ranges[point].high == pytest.approx(expected, rel=1e-4)
