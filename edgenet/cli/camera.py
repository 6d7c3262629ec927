"""edgenet camera: live classification, in a window, on a page, or in the terminal."""

from __future__ import annotations

import functools
import math
import os
import re
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from edgenet.cli import options, terminal
from edgenet.cli.terminal import show_json, verb

if TYPE_CHECKING:
    from edgenet.camera.settings import Region
    from edgenet.camera.web.security import Tls


P = ParamSpec("P")

# Libraries print there, so it is lost; see terminal.py. "-" would be a file of that name.
_NOWHERE = ("-", "/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2")
_PIXELS = re.compile(r"[0-9]{1,9}")


class View(str, Enum):
    """Where it is shown."""

    window = "window"
    web = "web"
    terminal = "terminal"
    none = "none"


class Voice:
    """Lines for the user, on stderr, and what is answered on a terminal."""

    def say(self, line: str) -> None:
        """Print a line."""
        print(" ".join(line.split()), file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """Print a line that is no error."""
        terminal.warn(line)

    def error(self, line: str) -> None:
        """Print a line that says what is wrong."""
        terminal.error(line)

    def ask(self, question: str) -> str:
        """Read a line from the terminal; "" where there is none, or it is another job's, or it has ended."""
        if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return ""
        if hasattr(os, "tcgetpgrp") and os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
            return ""  # in the background reading would stop it
        print(question, end=" ", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip()


def _at_once(verb: Callable[P, None]) -> Callable[P, None]:
    """End the process without waiting for a thread that a stalled camera keeps in its driver's code.

    Everything else has been closed by then. Ending as usual would have to wait: see edgenet.camera.sources.live.
    """

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except typer.Exit as exc:
            _leave(exc.exit_code)
            raise
        _leave(0)

    return run


def _leave(code: int) -> None:
    live_source = sys.modules.get("edgenet.camera.sources.live")
    if live_source is not None and not live_source.ended():
        terminal.end(code)


@_at_once
@verb
def camera(
    file: Annotated[
        Path | None, typer.Argument(help="A model file: .tflite, .onnx. Default: the embedded classifier of symbols.")
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            metavar="0|CLIP|ADDRESS|picamera2|browser",
            help="A camera's number, a video, rtsp:// or http:// (MJPEG). Default: the first camera that opens.",
        ),
    ] = "",
    view: Annotated[
        View | None, typer.Option(help="Where it is shown. Default: a window where there is a display, else web.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="A video of what is shown, never mirrored: .mp4, .mov, .mkv or .avi.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="What was seen, as JSON lines: one document a frame.")] = None,
    top: Annotated[int, typer.Option(help="How many classes are listed.", min=1)] = 5,
    threads: Annotated[
        int | None,
        typer.Option(help="Of one inference. Default: the cores but one, up to 4.", min=1, max=options.MOST_THREADS),
    ] = None,
    smooth: Annotated[float, typer.Option(help="Seconds that answers are averaged over; 0: not at all.", min=0)] = 0.5,
    mirror: Annotated[bool, typer.Option("--mirror", help="Show the picture as in a mirror.")] = False,
    rotate: Annotated[int, typer.Option(help="Degrees clockwise: 0, 90, 180, 270.")] = 0,
    roi: Annotated[
        str,
        typer.Option(
            metavar="X,Y,W,H", help="The part that the model is shown: pixels of the picture as --rotate turns it."
        ),
    ] = "",
    labels: options.LabelFile = None,
    input_range: options.InputRangeOption = None,
    host: Annotated[str, typer.Option(help="Of the page; 0.0.0.0: all the network, with a token.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Of the page. Default: 8080, or any that is free.", min=0, max=65535)
    ] = None,
    token: Annotated[str | None, typer.Option(help="Of the page, in place of one made up.")] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of the page, PEM: serves https, which other devices' cameras need."),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The private key of --tls-cert, PEM.")] = None,
    in_browser: Annotated[
        bool, typer.Option("--in-browser", help="Run the model in the page, on the camera there.")
    ] = False,
    phone: Annotated[
        bool, typer.Option("--phone", help="Open the page on the phone that adb sees; its camera is the source.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Classify what a camera sees, live. Keys: q quit, space pause, m mirror, r rotate, s save, p precision."""
    from edgenet.camera import session
    from edgenet.camera.settings import Settings
    from edgenet.camera.wishes import Wishes
    from edgenet.errors import UsageError

    if view is View.none and not (record or log or json):
        raise UsageError("--view none shows nothing: give --log, --record or --json with it")
    if log is not None and str(log) in _NOWHERE:
        raise UsageError(
            f"--log {log}: stdout is for --json alone; give a file, or another program's input: --log >(jq .label)"
        )
    if in_browser and json:
        raise UsageError("--in-browser keeps everything in the page: --json needs the model to run here")
    if not math.isfinite(smooth):
        raise UsageError(f"--smooth {smooth}: give seconds, such as 0.5; 0: not at all")
    wishes = Wishes(
        file=file,
        source=source,
        view=view.value if view else "",
        record=record,
        log=log,
        threads=threads,
        settings=Settings(top=top, smooth_s=smooth, region=_region(roi)),
        mirror=mirror,
        rotate=rotate % 360,
        labels=options.labels_in(labels),
        labels_file=labels,
        input_range=_range(input_range),
        host=host,
        port=port,
        token=token,
        tls=_tls(tls_cert, tls_key),
        in_browser=in_browser,
        phone=phone,
        json=json,
        terminal_lives=None if terminal.Progress.live else False,
    )
    outcome = session.run(wishes, Voice())
    if json and outcome is not None:
        show_json(session.document(outcome))
    if outcome is not None and outcome.broke_off:
        raise typer.Exit(1)


def _region(text: str) -> Region | None:
    from edgenet.camera.settings import Region
    from edgenet.errors import UsageError

    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(map(_PIXELS.fullmatch, parts)) or 0 in map(int, parts[2:]):
        raise UsageError(f"--roi {text}: give x,y,width,height in pixels, such as 320,0,720,720")
    return Region(*map(int, parts))


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    from edgenet.camera.web.security import Tls
    from edgenet.errors import UsageError

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key go together: give both")
    return Tls(certificate, key)


def _range(given: options.InputRange | None) -> tuple[float, float] | None:
    from edgenet.nets.normalization import INPUT_RANGES

    return INPUT_RANGES[str(given.value)] if given else None
