"""Narrower ranges: each tensor has a choice, and takes what costs the answers least."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converters.int8 import clipping
from converters.int8.arithmetic import Range
from converters.int8.prepare import Prepared
from converters.int8.simulator import write_weights

from .networks import is_aligned, position

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


def test_a_choice_is_what_was_seen_and_narrower_ones(mobile: Prepared, images: np.ndarray) -> None:
    simulator, start = mobile.simulator, mobile.start
    found = clipping.candidates(mobile, start, images)
    assert found.keys() == set(simulator.points) - simulator.float_points()
    narrower, swishes = 0, 0
    for point, spans in found.items():
        assert spans[0] == start.ranges[point]
        if simulator.kinds[point] not in ("free", "swish"):
            assert len(spans) == 1
        assert len(set(spans)) == len(spans)
        widths = [span.high - span.low for span in spans]
        assert widths == sorted(widths, reverse=True)
        narrower += widths[-1] < 0.999 * widths[0]
        swishes += simulator.kinds[point] == "swish" and len(spans) > 1
    assert narrower > len(found) / 4
    assert swishes, "what a hard swish reads has a choice, too"


@pytest.mark.parametrize("tail", [1e-2, 1e-3])
def test_a_percentile_leaves_out_its_share(mobile: Prepared, images: np.ndarray, tail: float) -> None:
    simulator, held = mobile.simulator, values(mobile, images)
    judged, lower = 0, 0
    for point in set(simulator.points) - simulator.float_points():
        if simulator.kinds[point] == "free":
            wide = mobile.start.ranges[point]
            counts = np.histogram(held[point], clipping.BINS, (wide.low, wide.high))[0]
            low, high = clipping.without(counts, wide, tail)
            part = (wide.high - wide.low) / clipping.BINS
            above, below = float((held[point] > high + part).mean()), float((held[point] < low - part).mean())
            assert max(above, below) <= tail + 1 / held[point].size
            assert above >= tail - 3 * counts.max() / counts.sum() or high == wide.high
            assert below >= tail - 3 * counts.max() / counts.sum() or low == wide.low
            judged += 1
            lower += low > wide.low
    assert judged > 5
    assert lower > 1


def test_a_percentile_that_would_leave_out_no_value_leaves_the_range(mobile: Prepared, images: np.ndarray) -> None:
    """48 images hold less than all did; that says nothing where a tail is less than one of their values."""
    wide = mobile.start.ranges[position(mobile.simulator, "pool")]
    few = np.zeros(clipping.BINS, np.int64)
    few[10:20] = 4
    assert clipping.without(few, wide, 1e-3) == (wide.low, wide.high)
    assert clipping.without(few * 1000, wide, 1e-3)[1] < wide.high
    pool = clipping.candidates(mobile, mobile.start, images[:2])[position(mobile.simulator, "pool")]
    assert len(pool) == 1, "40 values an image"


def test_the_cheapest_range_is_taken(mobile: Prepared, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value a thousand times as large as all others, and of no weight, should not cost the others their levels."""
    simulator, start = mobile.simulator, mobile.start
    point = position(simulator, "down_relu")
    span = start.ranges[point]
    far = replace(start, ranges={**start.ranges, point: Range(0.0, span.high * 50)})
    monkeypatch.setattr(clipping, "TAILS", (1e-4,))
    found = clipping.cheapest(mobile, far, images)
    assert found.state.ranges[point].high <= span.high * 1.02
    assert found.noise[point] < 0.01 * found.before[point]
    assert found.state.weights is far.weights
    assert all(found.noise[p] <= found.before[p] for p in found.noise)
    assert is_aligned(mobile, found.state)
