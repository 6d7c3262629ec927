"""What this machine is."""

from __future__ import annotations

import os

import pytest

from devices.machine import cores


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
