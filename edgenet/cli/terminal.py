"""What every verb shares: results on stdout, everything else on stderr, one line an error, and the exit codes.

0 done; 1 it failed; 2 wrong usage; 3 a gate was missed; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, ParamSpec

from edgenet.endings import when_asked_to_end

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

P = ParamSpec("P")

PLAIN_EVERY_S = 5.0


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """Make a function a verb: take the terminal, and turn errors into one line on stderr and an exit code."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        import typer

        from converters.errors import ConverterError
        from devices.errors import DeviceError
        from edgenet.errors import EdgenetError

        try:
            _take_the_terminal()
            with when_asked_to_end(_interrupt, last=True):  # a device gets back what it was lent
                function(*args, **kwargs)
        except EdgenetError as exc:
            error(str(exc))
            raise typer.Exit(exc.exit_code) from exc
        except (ConverterError, DeviceError) as exc:
            error(str(exc))
            raise typer.Exit(1) from exc
        except KeyboardInterrupt as exc:
            error(f"interrupted; {exc if exc.args and exc.args[0] else 'no model file is half-written'}")
            raise typer.Exit(130) from exc
        except MemoryError as exc:
            error("out of memory: fewer images, a smaller network, --effort plain, or a machine that has more")
            raise typer.Exit(1) from exc
        except ModuleNotFoundError as exc:
            error(
                f'{exc.name} is not installed, which this needs: pip install "edgenet[convert]", or see edgenet doctor'
            )
            raise typer.Exit(1) from exc
        except BrokenPipeError as exc:  # nobody reads what goes to stderr: nothing can be said
            raise typer.Exit(1) from exc
        except OSError as exc:
            where = f"{exc.filename}: " if exc.filename else ""
            full = not exc.filename and exc.errno in (errno.ENOSPC, errno.EDQUOT)
            room = f"; make room there, or in {tempfile.gettempdir()} (TMPDIR names another)" if full else ""
            error(f"{where}{exc.strerror or exc}{room}")
            raise typer.Exit(1) from exc

    return run


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def error(message: str) -> None:
    """Print one line that says what is wrong."""
    _write(f"edgenet: {' '.join(message.split())}\n", sys.stderr)


def warn(message: str) -> None:
    """Print one line that is no error."""
    _write(f"warning: {' '.join(message.split())}\n", sys.stderr)


def show(result: RenderableType) -> None:
    """Print a result, as wide as the terminal; whole where stdout is none."""
    from rich.console import Console
    from rich.table import Table

    from edgenet.cli.fitting import UNBROKEN, fitting

    stream = _results()
    width = None if stream.isatty() else UNBROKEN
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    parts = fitting(result, console.width) if width is None and isinstance(result, Table) else [result]
    with console.capture() as drawn:  # by itself it would end the process where nobody reads it
        for part in parts:
            console.print(part)
    _write(drawn.get(), stream)


def show_json(document: Any) -> None:
    """Print the result as exactly one JSON document."""
    _write(json_text(document), _results())


def _write(text: str, stream: IO[str]) -> None:
    """Print. Whoever reads it may have seen enough: the exit code says all the same what came out."""
    try:
        print(text, end="", file=stream, flush=True)
    except BrokenPipeError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())  # for what is left of it
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, "stderr" if stream is sys.stderr else "stdout") from exc


def json_text(document: Any) -> str:
    """Write a result as one JSON document; dataclasses, paths and arrays as plain values."""
    import json

    return json.dumps(document, indent=2, ensure_ascii=False, default=_plain) + "\n"


def end(code: int) -> NoReturn:
    """End the process now, with everything printed, and without waiting for its threads."""
    for stream in (_results(), sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    os._exit(code)


class Progress:
    """Progress of a verb on stderr: a live bar on a terminal, otherwise a line when the step changes and every 5 s."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._what = ""
        self._printed_s = 0.0

    live = True
    """False: plain lines on a terminal, too."""

    def __enter__(self) -> Progress:
        if self.live and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            console = Console(file=sys.stderr)
            if console.is_dumb_terminal:  # it moves no cursor, and would show no bar
                return self
            text = TextColumn("{task.description}", markup=False)
            columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Bar(*columns, console=console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say what is being done, and how far it is; total 0 where nobody knows."""
        if self._bar is not None:
            if what != self._what:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(what, total=total or None)
            self._bar.update(self._task, completed=done, total=total or None)
        elif what != self._what or time.monotonic() - self._printed_s > PLAIN_EVERY_S:
            count = f" {done}/{total}" if total and done else ""
            _write(f"{what}{count}\n", sys.stderr)
            self._printed_s = time.monotonic()
        self._what = what


_stdout: IO[str] | None = None


def _take_the_terminal() -> None:
    """Keep the real stdout for results and the real stderr for our own lines.

    What native libraries print (TensorFlow dozens of lines a run, libjpeg one for each picture of many a webcam) is
    lost; EDGENET_VERBOSE=1 lets it through to stderr. A crash in native code still prints its Python stack.
    """
    global _stdout
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        if stream is None:  # it was closed: the next file to be opened would get what is printed there
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8")
    if _stdout is not None or sys.stdout is None:
        return
    sys.stdout.flush()
    _stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    if os.environ.get("EDGENET_VERBOSE"):
        os.dup2(2, 1)
    else:
        sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
        faulthandler.enable(sys.stderr)
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
    sys.stdout = sys.stderr


def _results() -> IO[str]:
    stream = _stdout or sys.stdout
    if stream is None:
        raise OSError(errno.EBADF, "there is no stdout to show the result on: it was closed")
    return stream


def _plain(value: Any) -> Any:
    """Turn what json does not know into what it does."""
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # a numpy array or scalar
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
