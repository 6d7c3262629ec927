"""edgenet camera: live classification, in a window, on a page, or in the terminal."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenet.cli import options, terminal
from edgenet.cli.terminal import show_json, verb

if TYPE_CHECKING:
    from edgenet.camera.pipeline import Region


class View(str, Enum):
    """Where it is shown."""

    window = "window"
    web = "web"
    terminal = "terminal"
    none = "none"


class Voice:
    """Lines for the user, on stderr."""

    def say(self, line: str) -> None:
        """Print a line."""
        import sys

        print(" ".join(line.split()), file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """Print a line that is no error."""
        terminal.warn(line)

    def error(self, line: str) -> None:
        """Print a line that says what is wrong."""
        terminal.error(line)


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
    record: Annotated[Path | None, typer.Option(help="A video of what is shown: .mp4, .mov, .mkv or .avi.")] = None,
    log: Annotated[Path | None, typer.Option(help="What was seen, as JSON lines: one document a frame.")] = None,
    top: Annotated[int, typer.Option(help="How many classes are listed.", min=1)] = 5,
    threads: Annotated[
        int | None, typer.Option(help="Of one inference. Default: the cores but one, up to 4.", min=1)
    ] = None,
    smooth: Annotated[float, typer.Option(help="Seconds that answers are averaged over; 0: not at all.", min=0)] = 0.5,
    mirror: Annotated[bool, typer.Option("--mirror", help="Show the picture as in a mirror.")] = False,
    rotate: Annotated[int, typer.Option(help="Degrees clockwise: 0, 90, 180, 270.")] = 0,
    roi: Annotated[str, typer.Option(metavar="X,Y,W,H", help="The part that the model is shown, in pixels.")] = "",
    labels: options.LabelFile = None,
    input_range: options.InputRangeOption = None,
    host: Annotated[str, typer.Option(help="Of the page; 0.0.0.0: all the network, with a token.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Of the page. Default: 8080, or any that is free.", min=0, max=65535)
    ] = None,
    token: Annotated[str | None, typer.Option(help="Of the page, in place of one made up.")] = None,
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
    from edgenet.camera.pipeline import Settings
    from edgenet.errors import UsageError

    if view is View.none and not (record or log or json):
        raise UsageError("--view none shows nothing: give --log, --record or --json with it")
    wishes = session.Wishes(
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
        input_range=_range(input_range),
        host=host,
        port=port,
        token=token,
        in_browser=in_browser,
        phone=phone,
        terminal_lives=None if terminal.Progress.live else False,
    )
    outcome = session.run(wishes, Voice())
    if json and outcome is not None:
        show_json(session.document(outcome))
    if outcome is not None and outcome.broke_off:
        raise typer.Exit(1)


def _region(text: str) -> Region | None:
    from edgenet.camera.pipeline import Region
    from edgenet.errors import UsageError

    if not text:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts) or 0 in map(int, parts[2:]):
        raise UsageError(f"--roi {text}: give x,y,width,height in pixels, such as 320,0,720,720")
    return Region(*map(int, parts))


def _range(given: options.InputRange | None) -> tuple[float, float] | None:
    from edgenet.nets.normalization import INPUT_RANGES

    return INPUT_RANGES[str(given.value)] if given else None
