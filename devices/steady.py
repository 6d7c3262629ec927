"""A device's clocks held while files are timed on it, where it lets us; as they were when that is over.

Linux, as root: the governor `performance`. Android 11 and newer: its fixed performance mode, which any adb shell may
switch. Elsewhere nothing is changed. Source: kernel.org, CPU performance scaling; source.android.com, sustained
performance.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from devices.device import DeviceInfo
from devices.errors import ShellError
from devices.shell import Shell

FIXED_PERFORMANCE_API = 30  # Android 11

_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"  # those of one cluster are one file

# $1: where the device's files lie. Prints a line `governor path` for each that was changed.
_PERFORMANCE = f"""
[ "$(id -u)" = 0 ] || exit 0
for f in "$1"{_CPUFREQ}; do
    g=$(cat "$f" 2>/dev/null) && [ "$g" != performance ] || continue
    echo performance 2>/dev/null >"$f" && printf '%s %s\\n' "$g" "$f"
done; true
"""
# $1 and so on: those lines.
_RESTORE = 'for line; do printf "%s\\n" "${line%% *}" >"${line#* }"; done'
_FIX = "cmd power set-fixed-performance-mode-enabled"


@contextlib.contextmanager
def steady(
    shell: Shell, info: DeviceInfo, tell: Callable[[str], None] = lambda _: None, root: str = "/"
) -> Iterator[None]:
    """Hold a device's clocks inside the `with`, where it lets us.

    Args:
        shell: of the device.
        info: what it is.
        tell: told of what was changed.
        root: where its files lie.

    Raises:
        ShellError: it was lost meanwhile; never where a clock cannot be held.
    """
    undo: tuple[str, ...] = ()
    try:
        undo = _phone(shell, info) if info.android else _linux(shell, info, root)
        if undo:
            tell(f"hold the clocks of {info.name}")
        yield
    finally:
        if undo:
            with contextlib.suppress(ShellError):  # one that is gone: its clocks are its own again when it starts anew
                shell.run(undo)


def _phone(shell: Shell, info: DeviceInfo) -> tuple[str, ...]:
    """Switch the fixed performance mode on; what switches it off, () where it is not on."""
    if info.android is None or info.android.api_level < FIXED_PERFORMANCE_API:
        return ()
    return ("sh", "-c", f"{_FIX} false") if shell.run(("sh", "-c", f"{_FIX} true")).status == 0 else ()


def _linux(shell: Shell, info: DeviceInfo, root: str) -> tuple[str, ...]:
    """Choose the governor performance; what brings the others back, () where nothing was changed."""
    if info.state.governor in (None, "performance"):
        return ()
    changed = shell.run(("sh", "-c", _PERFORMANCE, "sh", root.rstrip("/"))).stdout.decode(errors="replace").splitlines()
    return ("sh", "-c", _RESTORE, "sh", *changed) if changed else ()
