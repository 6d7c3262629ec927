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
from devices.shells.shell import Shell

FIXED_PERFORMANCE_API = 30  # Android 11

_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"  # those of one cluster are one file
_WAS = "governors"

# $1: our folder on the device; $2: where its files lie. What was chosen before is written down on the device first: one
# that could not bring it back (a cut cable, kill -9) leaves that to the next one. Prints "held" where clocks are.
_PERFORMANCE = f"""
[ "$(id -u)" = 0 ] || exit 0
was=$1/{_WAS}; boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)
[ -e "$was" ] && read -r of <"$was" && [ "$of" = "boot $boot" ] || echo "boot $boot" >"$was" || exit 0
for f in "$2"{_CPUFREQ}; do
    g=$(cat "$f" 2>/dev/null) && [ "$g" != performance ] || continue
    printf '%s %s\\n' "$g" "$f" >>"$was" && echo performance 2>/dev/null >"$f" && held=1
done
while read -r g f; do [ "$g" = boot ] || held=1; done <"$was"
[ "$held" ] && echo held || rm -f "$was"
"""
# $1: our folder. Where two lines name one file, the later one tells what it was.
_RESTORE = f"""
cd "$1" && [ -e {_WAS} ] || exit 0
while read -r g f; do [ "$g" = boot ] || echo "$g" 2>/dev/null >"$f"; done <{_WAS}; rm -f {_WAS}
"""
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
    """Choose the governor performance; what brings the others back, () where nothing is changed."""
    if info.state.governor is None:
        return ()
    done = shell.run(("sh", "-c", _PERFORMANCE, "sh", shell.root, root.rstrip("/")))
    return ("sh", "-c", _RESTORE, "sh", shell.root) if done.stdout.strip() == b"held" else ()
