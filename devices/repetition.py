"""One fresh start of a file on a device, and whether it counts."""

from __future__ import annotations

from dataclasses import dataclass

from devices.device import THROTTLED
from devices.runtimes.timing import Run

CLOCK_DRIFT = 0.1
"""Change of the clock during a repetition, as a share, that makes it invalid."""

BY_ITSELF = ("pstate", "intel_cpufreq", "acpi-cpufreq", "cppc_cpufreq")
"""Clock drivers of processors that change the clock all the time by themselves, or each its own, as acpi-cpufreq and
cppc_cpufreq do: that of the first then says nothing of the one that a model runs on.
"""

_SINCE_BOOT = 16  # a throttle bit shifted so far left: that held since the board was started


@dataclass(frozen=True, slots=True)
class Repetition:
    """One fresh start of a file.

    Attributes:
        round: which of the interleaved rounds, from 0.
        run: every sample, and the device's state around them.
        fault: why it does not count, "" where it does.
        after_gap: the device was lost before it, and came back.
        hot: the device had not cooled down before it, as long as it was waited for.
    """

    round: int
    run: Run
    fault: str
    after_gap: bool
    hot: bool = False


def fault(run: Run) -> str:
    """Say why a repetition does not count; "" where it does."""
    warm, end = run.warm.throttled or 0, run.end.throttled or 0
    # A bit that is new since boot: it held for a while between the two readings.
    within = (end & ~warm) >> _SINCE_BOOT if run.warm.throttled is not None else 0
    said = [words for bit, words in THROTTLED.items() if (warm | end | within) & bit]
    if said:
        return ", ".join(said)
    first, last, driver = run.warm.frequency_khz, run.end.frequency_khz, run.end.clock_driver or ""
    if first and last and not any(name in driver for name in BY_ITSELF) and abs(last / first - 1) > CLOCK_DRIFT:
        return f"its clock went from {first / 1e3:.0f} to {last / 1e3:.0f} MHz"
    return ""
