"""What the server answers to which address: the page's files, the sockets, the streams, and figures for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenet import artifact
from edgenet.artifact import Artifact
from edgenet.camera.frame import Controls
from edgenet.camera.web.broadcast import Broadcast
from edgenet.camera.web.viewers import Cameras, MjpegStream, Viewer
from edgenet.errors import EdgenetError, UsageError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

PAGE = Path(__file__).with_name("page")
_KINDS: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}


@dataclass(slots=True)
class InPage:
    """The model that runs in the page itself.

    Attributes:
        file: a .tflite of the user's; None: no model runs there. known: what it is, where somebody has opened it.
        labels: of its classes; empty: those of its manifest, or else the classes' numbers.
        smooth_s: over how long its answers are averaged, seconds. top: how many classes are listed.
    """

    file: Path | None = None
    known: Artifact | None = None
    labels: tuple[str, ...] = ()
    smooth_s: float = 0.5
    top: int = 5
    _version: tuple[int, int] | None = field(default=None, init=False)

    def use(self, file: Path, known: Artifact | None = None) -> None:
        """Take a file. Raises UsageError where no browser runs its kind, or the page does not give what it takes."""
        if file.suffix.lower() != ".tflite":
            raise UsageError(f"{file}: a browser runs .tflite alone; give the .tflite of this model")
        known = known or _read(file)
        if known and known.manifest.input.dtype != "uint8":
            raise UsageError(
                f"{file} takes {known.manifest.input.dtype}, and the page gives uint8: give a file made by edgenet"
            )
        self.file, self.known, self._version = file, known, _version(file)

    @property
    def changed(self) -> bool:
        """Whether the file is no longer the one that was taken: what is known of it may be wrong."""
        return self.file is not None and _version(self.file) != self._version

    def describe(self, controls: Controls) -> dict[str, Any] | None:
        """Return what the page must know to run it; None where there is none."""
        if self.file is None:
            return None
        manifest = self.known.manifest if self.known else None
        answers = manifest.output if manifest else None
        return {
            "name": self.file.stem,
            "precision": manifest.precision if manifest else "",
            "labels": self.labels or (answers.labels if answers else ()),
            "crop": manifest.input.crop if manifest else "center",
            "probabilities": answers is not None and answers.meaning == "probabilities",
            "sum_tolerance": answers.sum_tolerance if answers else 0.02,
            "scale": (answers.scale if answers else 0) or 1 / 256,  # of integers that it answers
            "zero_point": answers.zero_point if answers else 0,
            "smooth_s": self.smooth_s,
            "top": self.top,
            "mirror": controls.mirror,
            "rotate": controls.rotate,
        }


def _version(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _read(file: Path) -> Artifact | None:
    try:
        return artifact.load(file)
    except EdgenetError:  # the file runs without its manifest, too
        return None


@dataclass(frozen=True, slots=True)
class Routes:
    """The application, without its guard; see application()."""

    broadcast: Broadcast
    cameras: Cameras
    in_page: InPage
    cut: bool

    def application(self) -> Starlette:
        """Return it, as ASGI."""
        from starlette.applications import Starlette
        from starlette.routing import Route, WebSocketRoute

        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/page/{name:path}", self._file),
                Route("/config.json", self._config),
                Route("/model.tflite", self._model),
                Route("/healthz", self._health),
                Route("/stats.json", self._stats),
                Route("/stream.mjpg", MjpegStream(self.broadcast), methods=["GET"]),
                WebSocketRoute("/ws", self._socket),
            ]
        )

    async def _index(self, request: Request) -> Response:
        return _send(PAGE / "index.html", request)

    async def _file(self, request: Request) -> Response:
        """Answer a file of the page: one of those that lie there, looked up by name, so that no path leads out."""
        from starlette.responses import PlainTextResponse

        file = page_files().get(request.path_params["name"])
        return _send(file, request) if file else PlainTextResponse("there is no such file\n", 404)

    async def _config(self, _: Request) -> Response:
        model = self.in_page.describe(self.broadcast.controls)
        return _json({"camera": self.cameras.inbox is not None, "cut": self.cut, "model": model})

    async def _model(self, _: Request) -> Response:
        from starlette.responses import FileResponse, PlainTextResponse

        file = self.in_page.file
        if file is None or not file.is_file():
            return PlainTextResponse("no model runs in the page: start edgenet camera --in-browser\n", 404)
        if self.in_page.changed:
            return PlainTextResponse(f"{file.name} has changed: start edgenet camera again\n", 409)
        return FileResponse(file, media_type="application/octet-stream", headers={"cache-control": "no-store"})

    async def _health(self, _: Request) -> Response:
        """Answer 503 where there are no pictures, so that whoever watches a camera need not read."""
        latest = self.broadcast.latest
        trouble = latest.update.stats.trouble if latest else ""
        return _json({"status": "trouble" if trouble else "ok", "trouble": trouble}, 503 if trouble else 200)

    async def _stats(self, _: Request) -> Response:
        latest = self.broadcast.latest
        state = json.loads(self.broadcast.state(latest)) if latest else {}
        return _json({"viewers": self.broadcast.viewers, "encoded": self.broadcast.encoded, **state})

    async def _socket(self, socket: WebSocket) -> None:
        from starlette.websockets import WebSocketDisconnect

        try:
            await Viewer(socket, self.broadcast, self.cameras).serve()
        except WebSocketDisconnect:  # while it was being told something
            return


def page_files() -> dict[str, Path]:
    """Return the page's files by their names in addresses; what is kept compressed goes by its own name."""
    files = [path for path in PAGE.rglob("*") if path.suffix in (*_KINDS, ".gz") and path.is_file()]
    return {path.relative_to(PAGE).as_posix().removesuffix(".gz"): path for path in files}


def _send(file: Path, request: Request) -> Response:
    """Answer a file, or that the browser has it: asked each time, or an upgrade would leave it with halves of two."""
    from starlette.responses import FileResponse, Response

    packed = file.suffix == ".gz"
    kind = _KINDS[Path(file.stem).suffix if packed else file.suffix]
    headers = {"cache-control": "no-cache", **({"content-encoding": "gzip"} if packed else {})}
    answer = FileResponse(file, media_type=kind, headers=headers, stat_result=file.stat())
    tag = answer.headers["etag"]
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"cache-control": "no-cache", "etag": tag})
    return answer


def _json(what: object, status: int = 200) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(what, status, headers={"cache-control": "no-store"})
