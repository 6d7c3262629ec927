"""Intervals and ratios: as wide as they say, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.statistics import bootstrap_ci95, paired_ratio, ratio, spread


@given(st.lists(st.floats(0.01, 1000), min_size=2, max_size=9))
@settings(deadline=None, max_examples=30)
def test_the_interval_lies_within_the_values_and_is_reproducible(values: list[float]) -> None:
    array = np.array(values)
    low, high = bootstrap_ci95(array, 1)
    assert array.min() <= low <= np.median(array) <= high <= array.max()
    assert (low, high) == bootstrap_ci95(array, 1)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_ci95(rng.normal(10, 1, 15))
        hits += low <= 10 <= high
    assert 0.88 <= hits / 200 <= 1


def test_what_drifts_cancels_where_repetitions_are_paired() -> None:
    drift = np.linspace(1, 2, 8)
    assert paired_ratio(3 * drift, drift).value == pytest.approx(3)
    alone = ratio(3 * drift, drift)
    assert alone.low < 3 < alone.high
    assert alone.high - alone.low > 0.5


def test_spread_by_hand() -> None:
    assert spread([98.0, 100.0, 102.0]) == pytest.approx(0.02)
    assert spread([5.0]) == 0
