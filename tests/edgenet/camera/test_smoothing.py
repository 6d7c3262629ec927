"""What smoothing promises of any answers at any times."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenet.camera.smoothing import MARGIN, SHARE, Smoother, ranked

Row = npt.NDArray[np.float64]

S = 1_000_000_000


@st.composite
def rows(draw: st.DrawFn, classes: int = 4) -> Row:
    """Probabilities that add up to 1."""
    values = np.array(draw(st.lists(st.floats(1e-3, 1), min_size=classes, max_size=classes)))
    row: Row = values / values.sum()
    return row


streams = st.lists(st.tuples(rows(), st.integers(0, 2 * S)), min_size=1, max_size=30)
constants = st.floats(0.01, 10)


@given(streams, constants)
def test_the_average_stays_among_what_it_averages(stream: list[tuple[Row, int]], seconds: float) -> None:
    smoother, at = Smoother(seconds), 0
    for index, (row, step) in enumerate(stream):
        at += step
        average, leader = smoother(row, at)
        seen = np.stack([row for row, _ in stream[: index + 1]])
        assert (average >= seen.min(axis=0) - 1e-9).all()
        assert (average <= seen.max(axis=0) + 1e-9).all()
        assert average.sum() == pytest.approx(1)
        assert 0 <= leader < 4


@given(rows(), rows(), st.integers(0, 3 * S), st.integers(0, 3 * S), constants)
def test_only_time_counts_not_how_many_frames_it_held(first: Row, then: Row, a: int, b: int, seconds: float) -> None:
    often, seldom = Smoother(seconds), Smoother(seconds)
    often(first, 0)
    seldom(first, 0)
    often(then, a)
    assert often(then, a + b)[0] == pytest.approx(seldom(then, a + b)[0])


@given(rows(), rows(), constants)
def test_after_the_time_constant_a_third_of_the_old_is_left(first: Row, then: Row, seconds: float) -> None:
    smoother = Smoother(seconds)
    smoother(first, 5 * S)
    average, _ = smoother(then, 5 * S + round(seconds * S))
    assert average == pytest.approx(then + (first - then) / np.e, abs=1e-6)


@given(streams, constants)
def test_the_leader_is_never_behind_by_the_margin_and_changes_only_for_it(
    stream: list[tuple[Row, int]], seconds: float
) -> None:
    smoother, at, before = Smoother(seconds), 0, None
    for row, step in stream:
        at += step
        average, leader = smoother(row, at)
        assert average[leader] > average.max() - MARGIN
        if before is not None and leader != before:
            assert average[leader] >= average[before] + MARGIN
            assert leader == average.argmax()
        before = leader


@given(st.integers(0, 2**32 - 1), st.floats(0.03, 0.045))
def test_of_a_thousand_small_probabilities_the_first_is_never_far_behind(seed: int, best: float) -> None:
    rng, smoother, before = np.random.default_rng(seed), Smoother(0.5), None
    for second in range(12):
        row = rng.random(1000)
        row *= (1 - best) / row.sum()
        row[second // 4] += best
        average, leader = smoother(row, second * S)
        assert average.max() < MARGIN
        assert average[leader] > (1 - SHARE) * average.max()
        if before is not None and leader != before:
            assert leader == average.argmax()
            assert average[before] <= (1 - SHARE) * average[leader]
        before = leader
    assert before == 2


@given(streams)
def test_off_it_is_the_frame_alone(stream: list[tuple[Row, int]]) -> None:
    smoother, at = Smoother(0), 0
    for row, step in stream:
        at += step
        average, leader = smoother(row, at)
        assert (average == row).all()
        assert leader == row.argmax()


@given(st.integers(1, 60))
def test_two_labels_that_take_turns_do_not_flicker(fps: int) -> None:
    smoother, shown = Smoother(0.5), []
    for frame in range(3 * fps):
        shown.append(smoother(np.array([0.52, 0.48]) if frame % 2 else np.array([0.48, 0.52]), frame * S // fps)[1])
    assert len(set(shown)) == 1


def test_a_clock_that_stands_still_or_goes_back_changes_nothing() -> None:
    smoother = Smoother(0.5)
    smoother(np.array([1.0, 0.0]), 10 * S)
    for at in (10 * S, 9 * S):
        average, leader = smoother(np.array([0.0, 1.0]), at)
        assert average.tolist() == [1, 0]
        assert leader == 0


def test_reset_and_another_number_of_classes_begin_anew() -> None:
    smoother = Smoother(100)
    smoother(np.array([1.0, 0.0]), 0)
    smoother.reset()
    assert smoother(np.array([0.0, 1.0]), 1)[0].tolist() == [0, 1]
    assert smoother(np.array([0.2, 0.2, 0.6]), 2)[1] == 2


@given(rows(12), rows(12), st.integers(1, 15))
def test_ranking_puts_the_leader_first_and_the_rest_in_order(raw: Row, smoothed: Row, top: int) -> None:
    labels = [f"class {index}" for index in range(12)]
    for leader in (int(smoothed.argmax()), 7):
        listed = ranked(raw, smoothed, leader, labels, top)
        assert len(listed) == min(top, 12)
        assert listed[0].index == leader
        rest = [one.smoothed for one in listed[1:]]
        assert rest == sorted(rest, reverse=True)
        assert len({one.index for one in listed}) == len(listed)
        assert all((one.label, one.raw) == (labels[one.index], raw[one.index]) for one in listed)


def test_of_equal_probabilities_the_lower_index_comes_first() -> None:
    row = np.array([0.1, 0.3, 0.3, 0.3])
    assert [one.index for one in ranked(row, row, Smoother(0)(row, 0)[1], "abcd", 4)] == [1, 2, 3, 0]
