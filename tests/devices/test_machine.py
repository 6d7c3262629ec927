"""What this machine is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from devices import machine
from devices.machine import at_once, cores, lent


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_cores_are_those_granted() -> None:
    """A container or taskset may grant fewer than there are."""
    granted = os.sched_getaffinity(0)
    assert cores() == len(granted)
    try:
        os.sched_setaffinity(0, {min(granted)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, granted)


@pytest.mark.parametrize(
    ("files", "expected", "workers"),
    [
        ({}, None, 4),
        ({"cpu.max": "max 100000"}, None, 4),
        ({"cpu.max": "150000 100000"}, 1.5, 2),
        ({"cpu.max": "800000 100000"}, 8, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, 4),
        ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "50000"}, 0.5, 1),
    ],
)
def test_a_container_may_lend_a_part_of_a_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str], expected: float | None, workers: int
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert (lent(tmp_path), at_once(tmp_path)) == (expected, workers)
