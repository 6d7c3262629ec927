"""What is said of repeated timings: bootstrap intervals, ratios, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_FAR_OUT = 3.0  # interquartile ranges beyond the quartiles. Source: Tukey, Exploratory Data Analysis, 1977


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster one file is than another, with a bootstrap 95 % interval over the repetitions."""

    value: float
    low: float
    high: float


def bootstrap_ci95(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Give the 95 % percentile-bootstrap interval of the median of values [n]."""
    rng = np.random.default_rng(seed)
    medians = np.median(values[rng.integers(0, len(values), (_RESAMPLES, len(values)))], axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def paired_ratio(slow: NDArray[np.float64], fast: NDArray[np.float64], seed: int = 0) -> Ratio:
    """Compare repetition with repetition: median of slow / fast, both float64 [repetitions], timed in turns."""
    ratios = slow / fast
    low, high = bootstrap_ci95(ratios, seed)
    return Ratio(float(np.median(ratios)), low, high)


def ratio(slow: NDArray[np.float64], fast: NDArray[np.float64], seed: int = 0) -> Ratio:
    """Compare repetitions that were not timed in turns, float64 [n] and [m]: each side is resampled by itself."""
    rng = np.random.default_rng(seed)
    medians = [np.median(side[rng.integers(0, len(side), (_RESAMPLES, len(side)))], axis=1) for side in (slow, fast)]
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return Ratio(float(np.median(slow) / np.median(fast)), float(low), float(high))


def outliers(samples_ns: NDArray[np.int64]) -> int:
    """Count samples that lie far out, int64 [runs]: beyond the quartiles by 3 times what lies between these."""
    low, high = np.percentile(samples_ns, (25, 75))
    reach = _FAR_OUT * (high - low)
    return int(((samples_ns < low - reach) | (samples_ns > high + reach)).sum())


def spread(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Half the distance between the lowest and the highest, as a share of their median; 0 for one value."""
    array = np.asarray(values, np.float64)
    return float((array.max() - array.min()) / 2 / np.median(array))
