"""One viewer's connection: its WebSocket, or its MJPEG stream.

The socket carries, from here, binary messages: the length of a JSON text (4 bytes, big-endian), that text, and a JPEG,
or nothing where the picture is the one before or is not wanted. The viewer acknowledges each when it has drawn it, and
only then gets the next, the newest there is; something comes at least every second. It may also press buttons and send
its own camera's pictures.

    text    {"do": "ack", "away": true}                 the last message was drawn; away: once somebody looked again
    text    {"do": "pause" | "mirror" | "rotate" | "save" | "precision"}
    text    {"do": "pictures", "wanted": true | false}  false: its own camera runs; true: no longer
    binary  a JPEG of its camera; answered with text {"taken": its frame's id, or null} or {"busy": why}
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from functools import partial
from operator import not_
from typing import TYPE_CHECKING, Any

from edgenet.camera.frame import Controls, Frame
from edgenet.camera.sources.browser import FrameInbox
from edgenet.camera.web.broadcast import Broadcast, Full, Shown

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send
    from starlette.websockets import WebSocket

MAX_TEXT_BYTES = 4096
_WINDOW_NS = 2_000_000_000  # of the ages that percentiles are taken of
_AGE_EVERY_S = 0.25  # figures that change faster cannot be read
_DONE, _NONSENSE, _TOO_BIG, _BUSY = 1000, 1008, 1009, 1013  # how a socket is closed (RFC 6455, 7.4.1; IANA)
_BOUNDARY = b"edgenet-frame"
_SILENCE_S = 2.0  # without a picture, until another camera may come
_OTHER_CAMERA = "another page sends its camera: stop it there, then start this one"


class Cameras:
    """Whose camera is used: one viewer's at a time, until it stops, leaves, or sends nothing more."""

    def __init__(self, inbox: FrameInbox | None) -> None:
        self.inbox = inbox
        self._holder: object = None
        self._until_s = 0.0  # of time.monotonic(): how long it may keep silent

    def put(self, who: object, jpeg: bytes) -> dict[str, Any]:
        """Take a picture of a viewer's camera; what it is answered."""
        if self.inbox is None:
            return {"busy": "no browser's camera is used: start edgenet camera --source browser"}
        if self._holder not in (None, who) and time.monotonic() < self._until_s:
            return {"busy": _OTHER_CAMERA}
        taken = self.inbox.put_jpeg(jpeg)
        if taken is not None:
            self._holder, self._until_s = who, time.monotonic() + _SILENCE_S
        return {"taken": taken}

    def leave(self, who: object) -> None:
        """Another camera may come."""
        if self._holder is who:
            self._holder = None


class Ages:
    """How old frames were when a viewer said that it had drawn them: its answer's way included, by one clock."""

    def __init__(self) -> None:
        self._ages: deque[tuple[int, float]] = deque()

    def add(self, frame: Frame) -> None:
        """A frame was drawn just now."""
        now = time.monotonic_ns()
        self._ages.append((now, (now - frame.captured_ns) / 1e6))
        self._forget(now)

    def percentiles(self) -> list[float]:
        """Return p50 and p95 of the last two seconds, ms; empty where nothing was drawn."""
        self._forget(time.monotonic_ns())
        ages = sorted(age for _, age in self._ages)
        return [round(ages[min(len(ages) - 1, int(len(ages) * share))], 1) for share in (0.5, 0.95)] if ages else []

    def _forget(self, now_ns: int) -> None:
        while self._ages and now_ns - self._ages[0][0] > _WINDOW_NS:
            self._ages.popleft()


class Viewer:
    """A page on a WebSocket."""

    def __init__(self, socket: WebSocket, broadcast: Broadcast, cameras: Cameras) -> None:
        self._socket = socket
        self._broadcast = broadcast
        self._cameras = cameras
        self._acknowledged = asyncio.Event()
        self._away = False
        self._pictures = True
        self._drawn: Frame | None = None
        self._ages = Ages()
        self._age: tuple[float, bytes] = (0.0, b"")  # when to say it anew, and a JSON object without its end

    async def serve(self) -> None:
        """Talk with it until it leaves, or until it sends what makes no sense."""
        await self._socket.accept()
        try:
            with self._broadcast.entered():
                await self._talk()
        except Full:
            await self._socket.close(_BUSY, "too many viewers: close another page first")

    async def _talk(self) -> None:
        sending = asyncio.create_task(self._send())
        talking = [sending, asyncio.create_task(self._say_goodbye(sending))]
        try:
            await self._receive()
        finally:
            self._cameras.leave(self)
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)  # that it was cancelled, or that the viewer is gone

    async def _say_goodbye(self, sending: asyncio.Task[None]) -> None:
        """Say that all was shown, where that is the end, also to who looks away; of any other end the server tells."""
        await self._broadcast.closing.wait()
        if self._broadcast.all_shown:
            await asyncio.wait({sending}, timeout=self._broadcast.farewell_s)
            await self._socket.close(_DONE, "all was shown")

    async def _send(self) -> None:
        number = -1
        while (shown := await self._broadcast.newer(number, lambda: self._pictures)) is not None:
            number = shown.number
            fresh = shown.frame is not None and shown.frame is not self._drawn
            self._acknowledged.clear()
            await self._socket.send_bytes(await self._message(shown, fresh))
            await self._acknowledged.wait()
            if fresh and shown.frame is not None:
                self._drawn = shown.frame
                if not (shown.update.paused or self._away):  # or it is as old as the pause, or as the absence was long
                    self._ages.add(shown.frame)

    async def _message(self, shown: Shown, fresh: bool) -> bytes:
        picture = await self._broadcast.picture(shown.frame) if fresh and self._pictures and shown.frame else b""
        until, head = self._age
        if time.monotonic() >= until:
            head = json.dumps({"age_ms": self._ages.percentiles()}).encode()[:-1]
            self._age = (time.monotonic() + _AGE_EVERY_S, head)
        text = head + b", " + self._broadcast.state(shown)[1:]  # two JSON objects made one
        return len(text).to_bytes(4, "big") + text + picture

    async def _receive(self) -> None:
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            picture, text = message.get("bytes"), message.get("text")
            if picture is not None:
                await self._socket.send_json(self._cameras.put(self, picture))
            elif text is None or len(text) > MAX_TEXT_BYTES:
                return await self._socket.close(_TOO_BIG, "a message of at most 4 KB is expected")
            elif not self._obey(text):
                return await self._socket.close(_NONSENSE, "that message makes no sense here")
        return None

    def _obey(self, text: str) -> bool:
        """Do what a message says; False where it says nothing known."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return False
        wish = message.get("do") if isinstance(message, dict) else None
        if wish == "ack":
            self._away = message.get("away") is True
            self._acknowledged.set()
        elif wish == "pictures":
            self._pictures = message.get("wanted") is True
            if self._pictures:  # it no longer sees its own
                self._cameras.leave(self)
        else:
            return isinstance(wish, str) and press(self._broadcast.controls, wish)
        return True


def press(controls: Controls, button: str) -> bool:
    """Press one of the page's buttons; False where there is none of that name."""
    if button == "pause":
        controls.paused = not controls.paused
    elif button == "mirror":
        controls.mirror = not controls.mirror
    elif button == "rotate":
        controls.rotate = (controls.rotate + 90) % 360
    elif button == "save":
        controls.save.set()
    elif button == "precision":
        controls.toggle_precision.set()
    else:
        return False
    return True


class MjpegStream:
    """Pictures alone, one part each (multipart/x-mixed-replace): for curl, VLC and <img>. An ASGI application.

    They are mirrored here where they are shown so: the page does that itself.
    """

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the viewer leaves or the server closes."""
        if scope["method"] == "HEAD":
            await self._begin(send)
            return await send({"type": "http.response.body"})
        try:
            with self._broadcast.entered():
                streaming = asyncio.create_task(self._stream(send))
                leaving = asyncio.create_task(_disconnected(receive))
                tasks = {streaming, leaving}
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        except Full:
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"10")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b"too many viewers: close another page first\n"})
        return None

    @staticmethod
    async def _begin(send: Send) -> None:
        kind = b"multipart/x-mixed-replace; boundary=" + _BOUNDARY
        headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _stream(self, send: Send) -> None:
        await self._begin(send)
        number, drawn, mirrored = -1, None, False
        while (shown := await self._broadcast.newer(number, partial(not_, mirrored))) is not None:
            number = shown.number
            if shown.frame is None or (shown.frame is drawn and shown.update.mirror == mirrored):
                continue
            drawn, mirrored = shown.frame, shown.update.mirror
            picture = await self._broadcast.picture(drawn, mirror=mirrored)
            head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (_BOUNDARY, len(picture))
            await send({"type": "http.response.body", "body": head + picture + b"\r\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"--%s--\r\n" % _BOUNDARY})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
