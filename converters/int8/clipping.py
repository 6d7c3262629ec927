"""Ranges narrower than what was seen: levels that few values use are worth more where most values are.

Three ways, each for the points whose range is free: the mean of the images' own extremes, a percentile of all values,
and the range with the least squared error. Which of them helps, if any, depends on the network: MobileNetV3 trained
here loses 3 points with its extremes and none with their mean; a percentile costs MobileNetV2 6 points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.int8 import graph
from converters.int8.arithmetic import STEPS, Range
from converters.int8.prepare import Prepared
from converters.int8.ranges import allowed
from converters.int8.simulator import State, write_weights

IMAGES = 48
"""That are looked at, spread evenly."""

BATCH = 12
BINS = 8192

NARROWEST = 0.3
"""Of what was seen; tried in 36 steps."""


class Values:
    """What the points of a float network hold; seen when first asked for."""

    def __init__(self, prepared: Prepared, start: State, images: np.ndarray) -> None:
        """Prepare to look at a state's float weights, over its ranges; images: uint8 [n, height, width, 3]."""
        self._prepared, self._start, self._images = prepared, start, images[:: -(-len(images) // IMAGES)]

    @functools.cached_property
    def extremes(self) -> Mapping[int, np.ndarray]:
        """Smallest and largest value of each of IMAGES, [IMAGES, 2], by point."""
        write_weights(self._prepared.simulator.core, self._start.weights)
        return self._prepared.simulator.seen(self._images)

    @functools.cached_property
    def counts(self) -> Mapping[int, np.ndarray]:
        """Values in each of BINS equal parts of a point's range, where it may be chosen."""
        return _counted(self._prepared, self._start, self._images)


def averaged(prepared: Prepared, start: State, values: Values) -> State:
    """Return a state whose ranges are the mean of the images' own, which cuts off what few images reach."""
    means = {point: values.extremes[point].mean(axis=0) for point in _free(prepared)}
    return _clipped(prepared, start, lambda point, _: (float(means[point][0]), float(means[point][1])))


def percentile(prepared: Prepared, start: State, values: Values, tail: float) -> State:
    """Return a state whose ranges leave out a share `tail` of the values at each end.

    A tensor of so few values that none would be left out keeps its range: what IMAGES hold of it is less than all saw.
    """
    counts = values.counts

    def ends(point: int, span: Range) -> tuple[float, float]:
        if tail * counts[point].sum() < 1:
            return span.low, span.high
        edges = np.linspace(span.low, span.high, BINS + 1)
        share = np.cumsum(counts[point]) / max(counts[point].sum(), 1)
        low, high = int(np.searchsorted(share, tail, side="right")), int(np.searchsorted(share, 1 - tail))
        return float(edges[low]), float(edges[min(high + 1, BINS)])

    return _clipped(prepared, start, ends)


def least_squares(prepared: Prepared, start: State, values: Values) -> State:
    """Return a state whose ranges are shrunk to where clipping and rounding together cost least, tensor by tensor."""
    counts = values.counts

    def ends(point: int, span: Range) -> tuple[float, float]:
        edges = np.linspace(span.low, span.high, BINS + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        shares = np.linspace(NARROWEST, 1, 36)
        rounded = np.where((edges[:-1] <= 0) & (edges[1:] > 0), 0, counts[point])  # 0, which ReLU gives, is exact
        errors = [
            _squared_error(counts[point], rounded, middles, share * span.low, share * span.high) for share in shares
        ]
        best = float(shares[int(np.argmin(errors))])
        return best * span.low, best * span.high

    return _clipped(prepared, start, ends)


def _counted(prepared: Prepared, start: State, images: np.ndarray) -> dict[int, np.ndarray]:
    import tensorflow as tf

    simulator, points = prepared.simulator, _free(prepared)
    write_weights(simulator.core, start.weights)

    def count(batch: Any) -> Any:
        found = {}

        def call(node: Any, *args: Any, **kwargs: Any) -> Any:
            y = node.operation(*args, **kwargs)
            position = simulator.position[id(node)]
            if position in points:
                span = start.ranges[position]
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


def _free(prepared: Prepared) -> list[int]:
    """List the points that are rounded and whose range may be chosen."""
    simulator = prepared.simulator
    rounded = set(simulator.points) - simulator.float_points()
    return sorted(point for point in rounded if simulator.kinds[point] in ("free", "swish"))


def _clipped(prepared: Prepared, start: State, ends: Callable[[int, Range], tuple[float, float]]) -> State:
    kinds = prepared.simulator.kinds
    spans = {point: allowed(kinds[point], *ends(point, start.ranges[point])) for point in _free(prepared)}
    return replace(start, ranges={**start.ranges, **spans})


def _squared_error(counts: np.ndarray, rounded: np.ndarray, middles: np.ndarray, low: float, high: float) -> float:
    """Add what clipping costs, of all values, and rounding, of those within that are not exact."""
    beyond = middles - np.clip(middles, low, high)
    step = (high - low) / STEPS
    return float((counts * np.square(beyond)).sum() + step**2 / 12 * rounded[beyond == 0].sum())


@dataclass(frozen=True, slots=True)
class Way:
    """One way to choose narrower ranges.

    Attributes:
        name: what a table calls it.
        narrowed: (network, its state with all that was seen in the ranges, what it holds) -> the state with others.
    """

    name: str
    narrowed: Callable[[Prepared, State, Values], State]


WAYS = (
    Way("ranges averaged over images", averaged),
    Way("ranges of 99.999 % of the values", functools.partial(percentile, tail=1e-5)),
    Way("ranges of 99.99 % of the values", functools.partial(percentile, tail=1e-4)),
    Way("ranges of least squares", least_squares),
)
LIKELY = WAYS[:2]
"""Those that have helped a network; the others have not yet."""
