"""Files timed side by side: a clock whose times are known tells what is made of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgenet.int8 import side_by_side
from edgenet.int8.side_by_side import fastest_ms

INFINITE = float("inf")


@pytest.mark.parametrize(
    ("delegated", "expected"),
    [
        ((10, 10, 9), [1.0, 3.0, INFINITE]),  # an operator more outside of the delegate than in the first file
        ((9, 9, 10), [1.0, 3.0, 5.0]),
        ((10, None, 10), [1.0, INFINITE, 5.0]),  # nobody knows
        ((None, None, None), [1.0, INFINITE, INFINITE]),
    ],
)
def test_the_fastest_tenth_counts_and_leaving_the_delegate_is_never_worth_it(
    monkeypatch: pytest.MonkeyPatch, delegated: tuple[int | None, ...], expected: list[float]
) -> None:
    """Each opening takes 100 samples; the second opening is 1 ms slower, as its memory lies badly."""
    opened: list[bytes] = []
    closed: list[bytes] = []

    class Clock:
        def __init__(self, path: Path) -> None:
            self.content = path.read_bytes()
            self.file = int(self.content)
            opened.append(self.content)
            self.info = SimpleNamespace(ops=10, delegated_ops=delegated[self.file])

        def measure(self, schedule: object) -> SimpleNamespace:
            assert opened.count(self.content) == closed.count(self.content) + 1, "all files are open at once"
            late = 1.0 if len(opened) > len(delegated) else 0.0
            ms = 1.0 + 2 * self.file + late + np.r_[np.zeros(30), np.full(70, 50.0)]
            return SimpleNamespace(samples_ns=(ms * 1e6).astype(np.int64))

        def close(self) -> None:
            closed.append(self.content)

    monkeypatch.setattr(side_by_side, "ModelProcess", Clock)
    told: list[tuple[int, int]] = []
    assert fastest_ms([b"0", b"1", b"2"], 2, lambda *at: told.append(at)) == pytest.approx(expected)
    assert sorted(opened) == sorted(closed) == [b"0", b"0", b"1", b"1", b"2", b"2"]
    assert told == [(0, 2), (1, 2)]
