"""Intervals and ratios: as wide as they say, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.statistics import Ratio, bootstrap_ci95, outliers, paired_ratio, ratio, spread


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


def test_the_interval_ends_where_the_binomial_distribution_says() -> None:
    """The median of 9 draws is the lowest value or less in 0.1 % of cases, the second in 3.0, the third in 14.5."""
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 90])
    assert bootstrap_ci95(values) == (2, 8)
    for compared in (ratio, paired_ratio):
        assert compared(values, np.full(9, 2.0)) == Ratio(2.5, 1, 4)


def test_an_outlier_lies_three_interquartile_ranges_beyond_the_quartiles() -> None:
    samples = np.arange(101)  # quartiles 25 and 75: from -125 to 225
    samples[[0, 1, 99, 100]] = -126, -125, 225, 226
    assert outliers(samples) == 2


def test_what_drifts_cancels_where_repetitions_are_paired() -> None:
    drift = np.linspace(1, 2, 8)
    assert paired_ratio(3 * drift, drift).value == pytest.approx(3)
    alone = ratio(3 * drift, drift)
    assert alone.low < 3 < alone.high
    assert alone.high - alone.low > 0.5


def test_spread_by_hand() -> None:
    assert spread([98.0, 100.0, 102.0]) == pytest.approx(0.02)
    assert spread([5.0]) == 0
