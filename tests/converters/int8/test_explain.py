"""Explanations: the operator made bad on purpose comes first, and the word says what was done to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converters.int8 import islands, prepare
from converters.int8.arithmetic import Range
from converters.int8.correct import METHODS, correct
from converters.int8.explain import HARMLESS_DB, IMAGES, Loss, explain
from converters.int8.prepare import Prepared
from converters.int8.ranges import allowed
from converters.int8.simulator import State, write_weights

from .networks import position

pytestmark = pytest.mark.parametrize("mobile", ["dense"], indirect=True)


def explained(prepared: Prepared, state: State, images: np.ndarray) -> tuple[Loss, ...]:
    return explain(prepared.simulator, state, state, images[:8])


def badness(loss: Loss) -> float:
    return min(loss.activation_db, 200.0 if loss.weights_db is None else loss.weights_db)


def with_weights(prepared: Prepared, changed: dict[str, tuple[np.ndarray, np.ndarray]], images: np.ndarray) -> State:
    """Other weights, and the ranges that go with them."""
    simulator, weights = prepared.simulator, {**prepared.start.weights, **changed}
    write_weights(simulator.core, weights)
    seen = simulator.seen(images).items()
    return State(weights, {p: allowed(simulator.kinds[p], float(v.min()), float(v.max())) for p, v in seen})


def test_every_operator_is_explained_worst_first(mobile: Prepared, images: np.ndarray) -> None:
    told: list[tuple[int, int]] = []
    many = np.concatenate([images, images])
    losses = explain(mobile.simulator, mobile.start, mobile.start, many, lambda done, of: told.append((done, of)))
    assert len(many) > 2 * IMAGES
    assert len(losses) == len(mobile.simulator.points)
    assert told[-1] == (len(losses) - 1, len(losses) - 1), "but for the logits, which stay float"
    assert [badness(loss) for loss in losses] == sorted(badness(loss) for loss in losses)
    named = {loss.layer: loss for loss in losses}
    assert {name for name, loss in named.items() if loss.weights_db is not None} == set(mobile.start.weights)
    for loss in losses:
        assert bool(loss.why) == (badness(loss) < HARMLESS_DB), loss
        assert not loss.kept_float
        assert loss.accumulated_db < 80
    assert named["scores"].activation_db == 200.0
    first, last = named["stem"], named["scores"]
    assert first.accumulated_db > last.accumulated_db, "losses add up"


@pytest.mark.parametrize("name", ["trunk", "down"])
def test_a_huge_range_is_an_outlier(mobile: Prepared, images: np.ndarray, name: str) -> None:
    point = next(
        one.point for start, one in mobile.simulator.fused.items() if position(mobile.simulator, name) == start
    )
    span = mobile.start.ranges[point]
    wide = Range(span.low * 30, span.high * 30)
    worst, *_ = explained(mobile, replace(mobile.start, ranges={**mobile.start.ranges, point: wide}), images)
    assert worst.layer == name
    assert worst.why.startswith("range outlier: ")
    times = float(worst.why.split()[2])
    assert 30 <= times < 80, "than what 99.9 % of the values need"


def test_one_huge_channel_is_a_spread(mobile: Prepared, images: np.ndarray) -> None:
    """It is scaled back where it is read, so that the float network answers as before."""
    (kernel, bias), (reader, after) = mobile.start.weights["last"], mobile.start.weights["scores"]
    grown = np.ones(48, np.float32)
    grown[3] = 400
    changed = {"last": (kernel * grown, bias * grown), "scores": (reader / grown[:, np.newaxis], after)}
    worst, second, *_ = explained(mobile, with_weights(mobile, changed, images), images)
    assert {worst.layer, second.layer} == {"last", "features"}
    for loss in (worst, second):
        assert loss.activation_db < 20
        assert loss.why.startswith("channel spread: the largest of its channels is ")
        assert 100 < float(loss.why.split()[8]) < 4000


@pytest.mark.parametrize(("name", "word", "times"), [("down", "depthwise", 2), ("trunk", "weight", 4)])
def test_huge_weights_in_each_channel_are_a_spread(
    mobile: Prepared, images: np.ndarray, name: str, word: str, times: int
) -> None:
    """In one layer two of 9 taps, which all but cancel on smooth pictures; in the other one of 16 channels."""
    kernel, bias = (array.copy() for array in mobile.start.weights[name])
    largest = np.abs(kernel).max()
    if name == "down":
        kernel[2, 2], kernel[2, 1] = 100 * largest, -100 * largest
    else:
        kernel[0, 0, 11] = 60 * largest * np.sign(kernel[0, 0, 11])
    losses = explained(mobile, with_weights(mobile, {name: (kernel, bias)}, images), images)
    worst = min((loss for loss in losses if loss.weights_db is not None), key=lambda loss: loss.weights_db or 0.0)
    assert worst.layer == name
    assert worst.why == f"{word} spread: a channel's largest weight is {times} times its typical one"


def test_the_floor_of_a_hard_swish(mobile: Prepared, images: np.ndarray) -> None:
    """What reads it takes differences of neighbours, so that each level counts; and a quarter of them lie below 0."""
    kernel, bias = (array.copy() for array in mobile.start.weights["down"])
    kernel[2, 2] = 20 * np.abs(kernel).max()
    kernel[2, 1] = -kernel[2, 2]
    losses = explained(mobile, with_weights(mobile, {"down": (kernel, bias)}, images), images)
    why = next(loss.why for loss in losses if loss.layer == "stem")
    assert why == "h-swish floor: 8 bits must hold -3..0 and all above"


def test_what_is_in_float_is_said_to_be(mobile: Prepared, images: np.ndarray) -> None:
    kept = islands.of_layers(mobile.simulator, ["stem", "trunk"])
    losses = {loss.layer: loss for loss in explained(mobile, replace(mobile.start, kept_float=kept), images)}
    assert {name for name, loss in losses.items() if loss.kept_float} == {"stem", "trunk"}
    # Nothing is rounded before it: what is left are float32's own last bits (2^-24), added up in the file's order.
    assert losses["stem"].accumulated_db > 130
    assert losses["stem"].activation_db < 80, "what it would lose in 8 bits is still told"


def test_what_is_in_float_still_accumulates_what_was_lost_before(mobile: Prepared, images: np.ndarray) -> None:
    kept = islands.around(mobile.simulator, position(mobile.simulator, "gated"))
    losses = {loss.layer: loss for loss in explained(mobile, replace(mobile.start, kept_float=kept), images)}
    assert losses["deep_swish"].accumulated_db < 40
    assert losses["gated"].accumulated_db < 40


def test_correction_shows_in_what_accumulates(coarse: Prepared, mobile: Prepared, images: np.ndarray) -> None:
    state = correct(coarse.simulator, coarse.start, images, METHODS[1])
    before, after = (
        {loss.layer: loss.accumulated_db for loss in explain(coarse.simulator, coarse.start, one, images[:8])}
        for one in (coarse.start, state)
    )
    assert after["scores"] > before["scores"] + 5


def test_equalized_channels_are_explained_as_they_are(mobile: Prepared, images: np.ndarray) -> None:
    """Held against the network that was equalized: its channels are scaled, which is no loss."""
    equalized = prepare.equalized(mobile, images)
    assert equalized is not None
    told = {loss.layer: loss for loss in explain(mobile.simulator, equalized, equalized, images[:8])}
    mixed = {loss.layer: loss for loss in explain(mobile.simulator, mobile.start, equalized, images[:8])}
    lost, apparent = (min(loss.accumulated_db for loss in one.values()) for one in (told, mixed))
    assert lost > 12
    assert apparent < lost - 4, "nothing was scaled; this test says nothing"
