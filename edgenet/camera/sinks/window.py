"""A window on the screen, and its keys."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from edgenet.camera.frame import Controls, Update
from edgenet.camera.sinks.overlay import Painter

KEYS = "q quit · space pause · m mirror · r rotate · s save · p precision"

_PROBE_S = 20.0  # the slowest board opens a window in less
_ROOM = 0.9  # of the screen, for a window: the rest is its title bar's and the desktop's panel's
_ESCAPE = "\x1b"
_ALWAYS = ("darwin", "win32")  # a display is part of the system

# Qt ends the whole process where it finds no display, so another process finds that out, and how large the screen is,
# which OpenCV says nowhere: the Xlib that Qt itself needs does.
_PROBE = """
import sys
sys.path[:] = sys.argv[1:]
import ctypes, os, cv2
if "GUI:                           NONE" in cv2.getBuildInformation():
    sys.exit(3)
cv2.namedWindow("edgenet", cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)
try:
    x = ctypes.CDLL("libX11.so.6")
    x.XOpenDisplay.restype = ctypes.c_void_p
    display = ctypes.c_void_p(x.XOpenDisplay(None))
    if display:
        screen = x.XDefaultScreen(display)
        print(x.XDisplayWidth(display, screen), x.XDisplayHeight(display, screen), flush=True)
except OSError:
    pass
os._exit(0)
"""


def press(controls: Controls, key: str) -> None:
    """Do what a key means; letters in either case, others mean nothing."""
    key = key.lower()
    if key in ("q", _ESCAPE):
        controls.quit.set()
    elif key == " ":
        controls.paused = not controls.paused
    elif key == "m":
        controls.mirror = not controls.mirror
    elif key == "r":
        controls.rotate = (controls.rotate + 90) % 360
    elif key == "s":
        controls.save.set()
    elif key == "p":
        controls.toggle_precision.set()


class DisplayProbe:
    """Finds out whether a window can be opened, without opening one here; it runs beside other preparations.

    screen: its width and height, once `why_not` said that; None where it does not tell: it is no X server.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.screen: tuple[int, int] | None = None
        self._environment = os.environ if environment is None else environment
        self._child: subprocess.Popen[bytes] | None = None
        if self._environment.get("DISPLAY") or self._environment.get("WAYLAND_DISPLAY") or sys.platform in _ALWAYS:
            places = [place for place in sys.path if place]  # never the current folder by default
            self._child = subprocess.Popen(
                [sys.executable, "-c", _PROBE, *places],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(self._environment),
            )

    def why_not(self) -> str:
        """Wait for the answer: "" where a window can be opened, or else why not and what to do, in one line."""
        if self._child is None:
            return "there is no display (DISPLAY is unset): --view web shows the same in a browser"
        told = b""
        try:
            told, _ = self._child.communicate(timeout=_PROBE_S)
        except subprocess.TimeoutExpired:
            self.close()
        if self._child.returncode == 0:
            size = re.search(rb"(\d+) (\d+)\s*$", told)
            self.screen = (int(size[1]), int(size[2])) if size else None
            return ""
        if self._child.returncode == 3:
            return (
                "this OpenCV has no windows (opencv-python-headless): --view web, or "
                'pip uninstall opencv-python-headless && pip install "edgenet[camera]"'
            )
        shown = self._environment.get("DISPLAY") or self._environment.get("WAYLAND_DISPLAY") or "of this machine"
        return f"no window opens on the display {shown}: --view web shows the same in a browser"

    def close(self) -> None:
        """Give up; harmless twice."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()


class Window:
    """A `Sink`: a window of OpenCV's. All its methods are for the main thread; `pump` looks after keys.

    screen: width and height that it has to fit on, where that is known.
    """

    def __init__(
        self,
        controls: Controls,
        painter: Painter,
        screen: tuple[int, int] | None = None,
        title: str = "edgenet camera",
    ) -> None:
        import cv2

        _share_events()
        self._cv2: Any = cv2
        self._controls = controls
        self._painter = painter
        self._title = title
        self._room = (int(_ROOM * screen[0]), int(_ROOM * screen[1])) if screen else None
        self._size: tuple[int, int] | None = None
        self._shown: tuple[Update | None, str] = (None, "")  # with the line that was shown for a moment

    def show(self, update: Update) -> None:
        """Show one update; the first one opens the window."""
        self._shown = (update, self._painter.noticed)
        picture = self._painter.paint(update, mirror=update.mirror, within=self._room)
        size = (picture.shape[1], picture.shape[0])
        if self._size is None:
            flags = self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO | self._cv2.WINDOW_GUI_NORMAL
            self._cv2.namedWindow(self._title, flags)
        self._cv2.imshow(self._title, picture)
        if size != self._size:  # it was turned, or the camera changed its resolution
            self._size = size
            self._cv2.resizeWindow(self._title, *size)

    def pump(self) -> None:
        """Let the window draw itself, and do what was pressed or closed."""
        if self._size is None:
            return
        update, noticed = self._shown
        if update is not None and noticed != self._painter.noticed:  # in a pause nothing else is shown anew
            self.show(update)
        key = self._cv2.pollKey()
        # Above 16 bits GTK says which modifiers were held; of special keys (arrows: 0xFF51) the lower byte is a letter.
        if key != -1 and 0 < key & 0xFFFF <= 0xFF:
            press(self._controls, chr(key & 0xFF))
        if not self._is_open():
            self._controls.quit.set()

    def close(self) -> None:
        """Close the window; harmless twice."""
        if self._size is not None:
            self._size = None
            if self._is_open():
                self._cv2.destroyWindow(self._title)
                self._cv2.pollKey()

    def _is_open(self) -> bool:
        try:
            return bool(self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) >= 1)
        except self._cv2.error:  # Qt has ended with its last window
            return False


def _share_events() -> None:
    """Let the Qt inside opencv-python's wheels tell the Xlib of this machine who reads the window's events.

    They bring a libX11-xcb of their own, which writes that into another version's structure: Xlib then takes events
    that Qt waits for, and now and then a window stays black for ever. What is loaded before, globally, comes first.
    """
    with contextlib.suppress(OSError):  # another system, or one without that library: as it was
        ctypes.CDLL("libX11-xcb.so.1", mode=ctypes.RTLD_GLOBAL)
