"""Costs by gradient: what they foretell is what rounding does to the logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converters.int8 import costs as costs_module
from converters.int8.arithmetic import Range
from converters.int8.costs import costs
from converters.int8.prepare import Prepared
from converters.int8.sensitivity import Sensitivity

from .networks import position

pytestmark = pytest.mark.parametrize("mobile", ["dense"], indirect=True)


def choices(prepared: Prepared, factors: tuple[float, ...] = (1.0,)) -> dict[int, list[Range]]:
    simulator, spans = prepared.simulator, prepared.start.ranges
    rounded = set(simulator.points) - simulator.float_points()
    return {p: [Range(spans[p].low * factor, spans[p].high * factor) for factor in factors] for p in rounded}


def test_they_foretell_what_rounding_a_tensor_alone_does(
    mobile: Prepared, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image eight times, in as many directions. The mean error is left out: some err by little else."""
    simulator = mobile.simulator
    monkeypatch.setattr(costs_module, "IMAGES", 8 * len(images))
    told = costs(simulator, mobile.start.weights, choices(mobile), np.tile(images, (8, 1, 1, 1)))
    alone = Sensitivity(simulator, mobile.start).alone(images)
    assert told.keys() == alone.keys()
    ratios = {p: float(cost.noise[0]) / 10 ** (-alone[p] / 10) for p, cost in told.items() if cost.noise[0] > 0}
    assert all(ratio < 1.2 for ratio in ratios.values())
    assert 0.7 < np.median(list(ratios.values())) < 1.1


def test_a_coarser_range_costs_by_the_square_of_its_step(mobile: Prepared, images: np.ndarray) -> None:
    told = costs(mobile.simulator, mobile.start.weights, choices(mobile, (1.0, 4.0)), images)
    ratios = [cost.noise[1] / cost.noise[0] for cost in told.values() if cost.noise[0] > 0]
    assert 8 < float(np.median(ratios)) < 32


def test_what_cuts_off_most_values_costs_more_than_it_saves(mobile: Prepared, images: np.ndarray) -> None:
    told = costs(mobile.simulator, mobile.start.weights, choices(mobile, (1.0, 0.05)), images)
    for name in ("trunk", "down_relu", "features"):
        fine, cut = told[position(mobile.simulator, name)].noise
        assert cut > 10 * fine


def test_what_lies_below_a_hard_swish_costs_nothing(mobile: Prepared, images: np.ndarray) -> None:
    """Its range begins at -3 whatever lies below: only what is above may cost anything."""
    simulator, point = mobile.simulator, position(mobile.simulator, "deep")
    assert simulator.kinds[point] == "swish"
    kernel, bias = mobile.start.weights["deep"]
    weights = {**mobile.start.weights, "deep": (kernel, bias - 1000)}
    span = {point: [mobile.start.ranges[point]]}
    assert float(costs(simulator, weights, span, images)[point].noise[0]) < 1e-12


def test_batches_add_up_and_are_told(mobile: Prepared, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    whole = costs(mobile.simulator, mobile.start.weights, choices(mobile), images[:20], lambda *at: told.append(at))
    assert told[-1] == (20, 20)
    monkeypatch.setattr(costs_module, "VALUES", 7 * mobile.simulator.stored_values())
    told.clear()
    parts = costs(mobile.simulator, mobile.start.weights, choices(mobile), images[:20], lambda *at: told.append(at))
    assert told == [(7, 20), (14, 20), (20, 20)]
    for point, cost in whole.items():
        assert parts[point].noise == pytest.approx(cost.noise, rel=1e-3)
        assert parts[point].channels == pytest.approx(cost.channels, rel=1e-3)


def test_nothing_else_is_changed(mobile: Prepared, images: np.ndarray) -> None:
    state = replace(mobile.start)
    first, again = (costs(mobile.simulator, state.weights, choices(mobile), images[:8]) for _ in range(2))
    assert {p: cost.noise.tolist() for p, cost in first.items()} == {
        p: cost.noise.tolist() for p, cost in again.items()
    }


def test_a_channel_costs_what_rounding_it_alone_does(mobile: Prepared, images: np.ndarray) -> None:
    """Weights that nobody reads make a channel cost nothing; the tensor's other channels cost what they did."""
    simulator, point = mobile.simulator, position(mobile.simulator, "wide_relu")
    span = {point: [mobile.start.ranges[point]]}
    before = costs(simulator, mobile.start.weights, span, images)[point].channels[0]
    kernel, bias = (part.copy() for part in mobile.start.weights["deep"])
    unread = int(before.argmax())
    kernel[:, :, unread] = 0
    after = costs(simulator, {**mobile.start.weights, "deep": (kernel, bias)}, span, images)[point].channels[0]
    assert before[unread] > 0
    assert after[unread] == 0
    assert before.sum() == pytest.approx(costs(simulator, mobile.start.weights, span, images)[point].noise[0], rel=0.5)
