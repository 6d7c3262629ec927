"""The machine we run on: read from the same files, by the same rules, as a device that is reached over ssh or adb."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import shutil
import subprocess
from pathlib import Path

from devices.cpuinfo import INT8_FEATURES, ISA_FEATURES, Processors, read_cpuinfo
from devices.device import BOARD_FILES, STATE_FILES, THERMAL, DeviceState, read_state

__all__ = ["INT8_FEATURES", "ISA_FEATURES", "at_once", "cores", "cpu_model", "isa_features", "lent", "machine_state"]


def machine_state(root: Path = Path("/")) -> DeviceState:
    """Read load, governor, clock, temperature and, on a Raspberry Pi, throttle bits; root: where /sys lies."""
    patterns = (*STATE_FILES, f"{THERMAL}/type", f"{THERMAL}/temp")
    files = [path for pattern in patterns for path in sorted(root.glob(pattern.lstrip("/")))]
    lines = {"/" + path.relative_to(root).as_posix(): _text(path).splitlines() or [""] for path in files}
    if root == Path("/"):
        lines["vcgencmd"] = [_vcgencmd()]
    state = read_state(lines)
    return state if state.load_1m is not None else dataclasses.replace(state, load_1m=_load())


def cpu_model(root: Path = Path("/")) -> str:
    """Name the board where the device tree does, else the processor."""
    boards = (_text(root / path.lstrip("/")).rstrip("\0") for path in BOARD_FILES)
    return next(filter(None, boards), "") or _processors(root).model or platform.processor() or platform.machine()


def isa_features(root: Path = Path("/")) -> tuple[str, ...]:
    """List those of ISA_FEATURES that the processors have."""
    return _processors(root).isa


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lent(root: Path = Path("/")) -> float | None:
    """Give the processors' worth of time that a container may use, 0.5 of one, say; None where nothing limits it.

    Source: kernel.org, cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us): beyond it every process there is made to wait.
    """
    folder = root / "sys/fs/cgroup"
    said = _text(folder / "cpu.max").split() or [
        _text(folder / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")
    ]
    if len(said) != 2 or not all(word.isdecimal() and int(word) for word in said):  # "max", -1
        return None
    return int(said[0]) / int(said[1])


def at_once(root: Path = Path("/")) -> int:
    """How many processes or threads gain by working at once: a container may be lent fewer than it sees processors."""
    paid = lent(root)
    return min(cores(), math.ceil(paid)) if paid else cores()


def _processors(root: Path) -> Processors:
    return read_cpuinfo(_text(root / "proc/cpuinfo").splitlines())


def _load() -> float | None:
    """Give the load where there is no /proc: macOS."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # AttributeError: Windows
        return None


def _vcgencmd() -> str:
    program = shutil.which("vcgencmd") or shutil.which("/opt/vc/bin/vcgencmd")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
