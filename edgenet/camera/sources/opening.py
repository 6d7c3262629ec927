"""From what a user writes after --source to a Source."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote

from edgenet.camera.frame import Source
from edgenet.camera.sources.file import files_of, open_file
from edgenet.camera.sources.picamera import open_picamera
from edgenet.camera.sources.url import open_url
from edgenet.camera.sources.v4l2 import open_device
from edgenet.errors import SourceError

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")  # two letters at least: C:/ is a path
_NUMBER = re.compile(r"(%0[0-9]+d)")  # in the name of a sequence, and not a control character in an address
_ALMOST = re.compile(r"(https?|rtsps?|rtmp|tcp|udp|srt):", re.IGNORECASE)
_SECRET = re.compile(r":.*@|\?.*=", re.DOTALL)  # a login; a query, which often holds one
_TRIED = 10  # cameras that first_camera looks for


def open_source(text: str, size: tuple[int, int] | None = None) -> Source:
    """Open a camera, a clip, pictures or a stream; opened and, as far as that takes no time, known to work.

    text: "0" or "/dev/video0", a path (clip, picture, folder, shot_%04d.png), an address (http, https, rtsp, rtsps,
    ...), "picamera2". size: (width, height) to ask a camera for; clips and streams have their own. Raises SourceError.
    """
    text = text.strip()
    if not text:
        raise SourceError("no source; give a camera's number such as 0, a clip, a folder, an address or picamera2")
    if text == "picamera2":
        return open_picamera(size)
    path = file_path(text)
    if path is not None:
        try:
            return open_file(path)
        except SourceError:
            if wrong := _mistyped(text, path):
                raise SourceError(wrong) from None
            raise
    return open_url(text) if _URL.match(text) else open_device(text, size)


def _mistyped(text: str, path: Path) -> str:
    """Say what is wrong with an address that was taken for a path, without the text itself; "" where it is a path."""
    with contextlib.suppress(OSError, ValueError):
        if path.exists():
            return ""
    if scheme := _ALMOST.match(text):
        name = scheme[1].lower()
        return f"this {name} address has not two slashes after its colon; write it as {name}://HOST:PORT/PATH"
    if _SECRET.search(text):
        return "there is no file of that name, and an address begins with its kind: rtsp://USER:PASSWORD@HOST/PATH"
    return ""


def file_path(text: str) -> Path | None:
    """Return the path of the file or folder that a source means; None where it is a camera or an address."""
    scheme = _URL.match(text)
    if scheme and scheme[1].lower() == "file":
        parts = _NUMBER.split(text[len(scheme[0]) :])
        return Path("".join(part if place % 2 else unquote(part) for place, part in enumerate(parts)))
    if scheme or (text.isascii() and text.isdigit()) or text.startswith(("/dev/video", "/dev/v4l/")):
        return None
    return Path(text).expanduser()


def read_of(text: str) -> tuple[Path, ...]:
    """Return the files that a source reads: a clip, a picture, or each picture of a folder or a sequence."""
    path = file_path(text.strip())
    return () if path is None else files_of(path)


def first_camera(size: tuple[int, int] | None = None) -> Source:
    """Open the first camera there is: 0 to 9, then a Raspberry Pi's own. Raises SourceError: what was tried."""
    reasons: dict[str, list[str]] = {}
    for number in range(_TRIED):
        try:
            return open_device(str(number), size)
        except SourceError as exc:
            name, _, why = str(exc).partition(": ")
            reasons.setdefault(why if why and "there is no /dev/" not in why else "absent", []).append(name)
    if importlib.util.find_spec("picamera2"):
        try:
            return open_picamera(size)
        except SourceError as exc:
            reasons[str(exc)] = []
    absent = reasons.pop("absent", [])
    tried = [f"{', '.join(names)}: {why}" if names else why for why, names in reasons.items()]
    if absent:
        tried.insert(0, "no camera at all from 0 to 9" if len(absent) == _TRIED else f"absent: {', '.join(absent)}")
    raise SourceError(f"no camera opens ({'. '.join(tried)}); plug one in, or give a clip or an address with --source")
