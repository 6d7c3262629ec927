"""What this machine is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from devices.machine import cores, lent


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
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "50000"}, 0.5),
    ],
)
def test_a_container_may_lend_a_part_of_a_processor(
    tmp_path: Path, files: Mapping[str, str], expected: float | None
) -> None:
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert lent(tmp_path) == expected
