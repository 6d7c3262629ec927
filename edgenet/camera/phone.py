"""The page on a phone that is connected by cable: adb makes our port the phone's own, where browsers trust it."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
from pathlib import Path

from devices.errors import DeviceError, DeviceUnreachable
from devices.shells.adb import find_adb, phones

_TIMEOUT_S = 10.0
_CLOSE_S = 1.0  # a phone that hangs does not hold the end up
_LOOK_EVERY_S = 3.0


class PhonePage:
    """Opens an address of this machine in the phone's browser. Raises DeviceError where there is no phone, or several.

    On http://127.0.0.1 a browser lets a page use the camera; on this machine's own address it would not.
    """

    def __init__(self) -> None:
        self._adb: Path = find_adb()
        ready = {phone.serial: phone for phone in phones(self._adb)}
        wanted = os.environ.get("ANDROID_SERIAL") or None
        if wanted is None and not ready:
            raise DeviceUnreachable("no phone is connected: plug one in that has USB debugging on")
        if wanted is None and len(ready) > 1:
            raise DeviceUnreachable(f"there are {len(ready)} phones: set ANDROID_SERIAL to one of {', '.join(ready)}")
        phone = ready.get(wanted) if wanted is not None else next(iter(ready.values()))
        if phone is None:
            raise DeviceUnreachable(f"there is no phone {wanted}: plug it in, or unset ANDROID_SERIAL")
        if phone.advice:
            raise DeviceUnreachable(f"the phone {phone.serial} cannot be used: {phone.advice}")
        self._serial = phone.serial
        self._port = 0
        self._ended = threading.Event()
        self._holding: threading.Thread | None = None

    def open(self, port: int, address: str) -> None:
        """Make a port of ours the phone's own, also after its cable was pulled, and open an address in its browser."""
        self._call("reverse", f"tcp:{port}", f"tcp:{port}")
        self._port = port
        view = ("am", "start", "-a", "android.intent.action.VIEW", "-d", address)
        said = self._call("shell", shlex.join(view))
        if "Error" in said:  # am answers 0 all the same
            raise DeviceError(f"the phone opens no page ({said[said.rfind('Error') :]}): open {address} in its browser")
        self._holding = threading.Thread(target=self._hold, name="phone", daemon=True)
        self._holding.start()

    def close(self) -> None:
        """Give the phone's port back; harmless twice, and without the phone."""
        self._ended.set()
        if self._holding:
            self._holding.join(_CLOSE_S)
        port, self._port = self._port, 0
        if port:
            with contextlib.suppress(DeviceError):
                self._call("reverse", "--remove", f"tcp:{port}", timeout_s=_CLOSE_S)

    def _hold(self) -> None:
        """Give the phone our port again where it has lost it: adb forgets it with the cable."""
        own = f"tcp:{self._port}"
        while not self._ended.wait(_LOOK_EVERY_S):
            with contextlib.suppress(DeviceError):  # not plugged back yet
                if own not in self._call("reverse", "--list").split():
                    self._call("reverse", own, own)

    def _call(self, *arguments: str, timeout_s: float = _TIMEOUT_S) -> str:
        command = [str(self._adb), "-s", self._serial, *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired:
            raise DeviceUnreachable(f"the phone {self._serial} gives no answer in {timeout_s:g} s") from None
        said = " ".join(f"{done.stdout} {done.stderr}".split())
        if done.returncode:
            raise DeviceError(f"adb {arguments[0]} fails on the phone {self._serial} ({said}): unplug it and try again")
        return said
