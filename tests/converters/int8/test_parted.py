"""How many images two runtimes will name differently, foretold from how near to another name images lie."""

from __future__ import annotations

import numpy as np
import pytest

from converters.int8.islands import parted


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
