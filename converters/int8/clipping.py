"""Narrower ranges: levels that few values use are worth more where most values are.

How much of a tensor may be cut off is a question to the answers, not to the tensor: MobileNetV3's pool may lose no
value, its first blocks one in three thousand. So each tensor has a choice of ranges, what was seen and what is left
without ever longer tails, and takes the one that costs the answers least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.int8 import graph
from converters.int8.arithmetic import Range
from converters.int8.costs import costs
from converters.int8.prepare import Prepared
from converters.int8.ranges import aligned, allowed
from converters.int8.simulator import State, write_weights

TAILS = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4)
"""Shares of the values that are left out at each end."""

IMAGES = 48
"""That tails are looked for in, spread evenly."""

BATCH = 12
BINS = 8192


@dataclass(frozen=True, slots=True)
class Cheapest:
    """Ranges that cost the answers least.

    Attributes:
        state: with these ranges.
        noise: that rounding a point alone adds to the logits, as a share of their power, by its position.
        before: the same, in the ranges that were seen.
        channels: noise that rounding a channel alone adds, [channels] by the position of the point, in ranges as seen.
    """

    state: State
    noise: dict[int, float]
    before: dict[int, float]
    channels: dict[int, np.ndarray]


def cheapest(
    prepared: Prepared, wide: State, images: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> Cheapest:
    """Find the range of each rounded point that costs the answers least, of what was seen and without each of TAILS.

    Args:
        prepared: the network; its weights are written.
        wide: float weights, and all that was seen in the ranges.
        images: calibration images, uint8 [n, height, width, 3].
        progress: called with the number of images done, and of all.
    """
    choices = candidates(prepared, wide, images)
    priced = costs(prepared.simulator, wide.weights, choices, images, progress)
    best = {point: choices[point][int(cost.noise.argmin())] for point, cost in priced.items()}
    simulator = prepared.simulator
    return Cheapest(
        replace(wide, ranges=aligned(simulator.core, simulator.kinds, {**wide.ranges, **best})),
        {point: float(cost.noise.min()) for point, cost in priced.items()},
        {point: float(cost.noise[0]) for point, cost in priced.items()},
        {point: cost.channels[0] for point, cost in priced.items()},
    )


def candidates(prepared: Prepared, wide: State, images: np.ndarray) -> dict[int, tuple[Range, ...]]:
    """List the ranges that each rounded point may have, what was seen first; of those without a choice that alone."""
    simulator = prepared.simulator
    rounded = set(simulator.points) - simulator.float_points()
    free = sorted(point for point in rounded if simulator.kinds[point] in ("free", "swish"))
    counts = _counted(prepared, wide, free, images[:: -(-len(images) // IMAGES)])
    found: dict[int, tuple[Range, ...]] = {point: (wide.ranges[point],) for point in rounded}
    for point in free:
        ends = [without(counts[point], wide.ranges[point], tail) for tail in TAILS]
        spans = [allowed(simulator.kinds[point], *pair) for pair in ends]
        found[point] = tuple(dict.fromkeys((wide.ranges[point], *spans)))
    return found


def without(counts: np.ndarray, span: Range, tail: float) -> tuple[float, float]:
    """Return the ends between which all values lie but a share `tail` at each end.

    A tensor of so few values that none would be left out keeps its range: what IMAGES hold of it is less than all saw.

    Args:
        counts: values in each of as many equal parts of the range.
        span: the range.
        tail: 0..1.
    """
    if tail * counts.sum() < 1:
        return span.low, span.high
    edges = np.linspace(span.low, span.high, len(counts) + 1)
    share = np.cumsum(counts) / counts.sum()
    low, high = int(np.searchsorted(share, tail, side="right")), int(np.searchsorted(share, 1 - tail))
    return float(edges[low]), float(edges[min(high + 1, len(counts))])


def _counted(prepared: Prepared, wide: State, points: list[int], images: np.ndarray) -> dict[int, np.ndarray]:
    """Count the values of points in each of BINS equal parts of their ranges."""
    import tensorflow as tf

    simulator = prepared.simulator
    write_weights(simulator.core, wide.weights)

    def count(batch: Any) -> Any:
        found = {}

        def call(node: Any, *args: Any, **kwargs: Any) -> Any:
            y = node.operation(*args, **kwargs)
            position = simulator.position[id(node)]
            if position in points:
                span = wide.ranges[position]
                found[position] = tf.histogram_fixed_width(y, (np.float32(span.low), np.float32(span.high)), BINS)
            return y

        graph.run(simulator.core, batch, call)
        return tf.stack([found[point] for point in points])

    compiled = tf.function(count, autograph=False)
    total = sum(
        np.asarray(compiled(tf.constant(simulator.read(images[i : i + BATCH]))), np.int64)
        for i in range(0, len(images), BATCH)
    )
    return dict(zip(points, np.asarray(total), strict=True))
