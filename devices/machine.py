"""The machine we run on: what it is, and the state that timings depend on. Read from files; nothing is started."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

# /proc/cpuinfo's names of what makes int8 and float16 fast: dot products on x86; on arm sdot, matrix multiply and
# half floats.
ISA_FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "fphp", "asimdhp")
INT8_FEATURES = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True, slots=True)
class MachineState:
    """What moves timings, at one moment; None where the machine does not tell."""

    load_1m: float | None  # runnable processes, mean over a minute
    governor: str | None
    clock_driver: str | None  # "intel_pstate" raises the clock by itself, whatever the governor is called
    frequency_khz: int | None  # of cpu0
    temperature_c: float | None  # the hottest zone


def machine_state(root: Path = Path("/")) -> MachineState:
    """Read load, governor, clock and temperature; root: where /sys lies."""
    cpufreq = root / "sys/devices/system/cpu/cpu0/cpufreq"
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    temperatures = [int(text) / 1000 for zone in zones if (text := _text(zone)).lstrip("-").isdigit()]
    frequency = _text(cpufreq / "scaling_cur_freq")
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # AttributeError: Windows
        load = None
    return MachineState(
        load_1m=load,
        governor=_text(cpufreq / "scaling_governor") or None,
        clock_driver=_text(cpufreq / "scaling_driver") or None,
        frequency_khz=int(frequency) if frequency.isdigit() else None,
        temperature_c=max(temperatures, default=None),
    )


def cpu_model(root: Path = Path("/")) -> str:
    """Name the board where the device tree does, else the processor."""
    board = _text(root / "proc/device-tree/model").rstrip("\0")
    if board:
        return board
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def isa_features(root: Path = Path("/")) -> tuple[str, ...]:
    """List those of ISA_FEATURES that the first processor has."""
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return tuple(name for name in ISA_FEATURES if name in flags)
    return ()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
