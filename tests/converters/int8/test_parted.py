"""How many images two runtimes will name differently, foretold from how near to another name images lie."""

from __future__ import annotations

import math

import numpy as np
import pytest

from converters.int8.islands import parted, worthwhile_db


@pytest.mark.parametrize(("share", "error"), [(1.0, 0.02), (1.0, 0.1), (0.1, 0.1)])
def test_the_share_foretold_is_the_share_counted(share: float, error: float) -> None:
    """On 60,000 images; share: of the images that are off at all."""
    rng = np.random.default_rng(5)
    right = rng.normal(size=(60_000, 10))
    off = right + error * rng.normal(size=right.shape) * (rng.random((len(right), 1)) < share)
    counted = (right.argmax(axis=1) != off.argmax(axis=1)).mean()
    assert parted(right, off) == pytest.approx(counted, rel=0.2)
    assert parted(right, right) == 0


def test_no_tie_divides_by_zero() -> None:
    assert parted(np.zeros((8, 3)), np.zeros((8, 3))) == 0
    assert parted(np.zeros((8, 3)), np.eye(8, 3)) == 1


def test_islands_must_win_more_answers_than_they_part() -> None:
    assert worthwhile_db(0.04, 0.0) == 0
    assert worthwhile_db(0.04, 0.02) == pytest.approx(6.02, abs=0.01), "half the error, half of the answers missed"
    assert worthwhile_db(0.04, 0.04) == worthwhile_db(0.0, 0.0) == math.inf
