"""What a latency was measured under that its verdict does not tell, as it met all repetitions alike."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from devices.device import OWN_GOVERNORS
from devices.machine import cores, lent, machine_state
from devices.repetition import BY_ITSELF, CLOCK_DRIFT

if TYPE_CHECKING:
    from devices.device import DeviceInfo
    from devices.latency import Latency

_BUSY = 0.5
"""Processes beyond the processors from which on a device is called busy; the load is a minute's mean."""


def conditions(one: Latency, info: DeviceInfo | None) -> tuple[str, ...]:
    """Say in a line each that it was rationed, the device busy, its clock low, or whether it throttled unknown.

    Args:
        one: the latency.
        info: what its device is; None where it was not asked: nothing is said then. Nor is it of a phone, which counts
            threads that wait in its load, and whose clocks we hold below the highest (devices.steady).
    """
    if info is None or info.android:
        return ()
    return tuple(filter(None, (_rationed(one, info), _busy(one, info), _slow(one, info), _unknown(one, info))))


def crowd_here() -> str:
    """Say that this machine has more to run than it has processors; "" where it has not, or nobody knows."""
    return _crowd(machine_state().load_1m, cores())


def _rationed(one: Latency, info: DeviceInfo) -> str:
    processors = lent() if info.kind == "local" else None
    if processors is None or one.threads <= processors:
        return ""
    return f"the container it runs in may use {processors:g} processors: beyond that it is made to wait"


def _busy(one: Latency, info: DeviceInfo) -> str:
    crowd = _crowd(one.before.load_1m, sum(len(cluster.cpus) for cluster in info.clusters))
    return f"{crowd} before it began: end what else runs there" if crowd else ""


def _crowd(load: float | None, processors: int) -> str:
    if load is None or not processors or load <= processors + _BUSY:
        return ""
    return f"its load was {load:.1f} on {processors} processors"


def _slow(one: Latency, info: DeviceInfo) -> str:
    governor, driver = one.before.governor or "", one.before.clock_driver or ""
    at, most = _clock(one, info, driver)
    check = f"edgenet devices check {one.device}"
    if at < (1 - CLOCK_DRIFT) * most:
        by = f", its governor is {governor}" if governor else ""
        return f"its clock was at {at / 1e3:.0f} of {most / 1e3:.0f} MHz{by}: {check}"
    if governor == "powersave" and driver not in OWN_GOVERNORS and not most:
        return f"its governor is powersave, which holds the lowest clock: {check}"
    return ""


def _clock(one: Latency, info: DeviceInfo, driver: str) -> tuple[float, float]:
    """Give its clock and the highest, kHz; 0 and 0 where processors differ, as nobody knows then whose was read."""
    known = [clock for each in one.counted if (clock := each.run.warm.frequency_khz)]
    most = info.clusters[0].max_khz if len(info.clusters) == 1 else None
    if not known or not most or any(name in driver for name in BY_ITSELF):
        return 0.0, 0.0
    return statistics.median(known), most


def _unknown(one: Latency, info: DeviceInfo) -> str:
    told = any(each.run.warm.throttled is not None for each in one.repetitions)
    if told or not info.board.startswith("Raspberry Pi"):
        return ""
    return f"whether it throttled is not known, as vcgencmd does not answer: edgenet devices check {one.device}"
