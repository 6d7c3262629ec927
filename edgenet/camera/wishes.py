"""What the user asked of the camera, and what of it goes together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from edgenet.camera.settings import Settings
from edgenet.camera.web.security import Tls
from edgenet.errors import UsageError
from edgenet.labels import Labels

View = Literal["", "window", "web", "terminal", "none"]

LOOPBACK = "127.0.0.1"
_ADB_REACHES = (LOOPBACK, "localhost", "0.0.0.0", "::")  # adb reverse ends at this machine's loopback


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for; the fields are the command's options, "" and None where nothing was said."""

    file: Path | None = None
    source: str = ""
    view: View = ""
    record: Path | None = None
    log: Path | None = None
    threads: int | None = None
    settings: Settings = field(default_factory=Settings)
    mirror: bool = False
    rotate: int = 0
    labels: Labels | None = None
    labels_file: Path | None = None
    input_range: tuple[float, float] | None = None
    host: str = LOOPBACK
    port: int | None = None
    token: str | None = None
    tls: Tls | None = None
    in_browser: bool = False
    phone: bool = False
    json: bool = False
    terminal_lives: bool | None = None

    @property
    def browsers_camera(self) -> bool:
        """The pictures come from whoever opens the page."""
        return self.in_browser or self.source == "browser" or (self.phone and not self.source)

    @property
    def of_the_page(self) -> tuple[str, ...]:
        """The options given that mean something to a page alone."""
        given = {
            "--host": self.host != LOOPBACK,
            "--port": self.port is not None,
            "--token": self.token is not None,
            "--tls-cert": self.tls is not None,
        }
        return tuple(name for name, said in given.items() if said)

    def check(self) -> None:
        """Raise UsageError, in one line, where wishes contradict each other."""
        if self.rotate % 90:
            raise UsageError(f"--rotate {self.rotate}: give 0, 90, 180 or 270")
        if self.phone and self.view not in ("", "web"):
            raise UsageError(f"--phone opens the page: it goes with --view web, not {self.view}")
        if self.phone and self.host not in _ADB_REACHES:
            raise UsageError(f"--phone reaches this machine's loopback, not {self.host}: leave --host out")
        if self.source == "browser" and self.view not in ("", "web"):
            raise UsageError(f"--source browser sends pictures from the page: it goes with --view web, not {self.view}")
        if self.view not in ("", "web") and (names := self.of_the_page):
            raise UsageError(f"{names[0]} is for the page: it goes with --view web, not {self.view}")
        if self.in_browser:
            self._check_in_browser()
        self._check_files()

    def _check_files(self) -> None:
        """Refuse to write over what is read, and to write two things into one file."""
        outputs = [(option, path) for option, path in (("--log", self.log), ("--record", self.record)) if path]
        read = self._read() if outputs else []
        for option, path in outputs:
            written = [("the file of --record", self.record)] if self.record and option == "--log" else []
            for what, other in (*read, *written):
                if _same(path, other):
                    raise UsageError(f"{option} {path}: that is {what}; choose another")

    def _read(self) -> list[tuple[str, Path]]:
        """Return the files that are read, and what each is."""
        from edgenet.camera import classifier
        from edgenet.camera.sources import opening

        model = classifier.read_of(self.file or classifier.default_model())
        source = opening.read_of(self.source) if self.source else ()
        tls = (("--tls-cert", self.tls.certificate), ("--tls-key", self.tls.key)) if self.tls else ()
        given = (("--labels", self.labels_file), *tls)
        return [
            *((what, path) for path, what in model.items()),
            *(("the file of the source" if len(source) == 1 else "a picture of the source", path) for path in source),
            *((f"the file of {option}", path) for option, path in given if path),
        ]

    def _check_in_browser(self) -> None:
        if self.view not in ("", "web") or self.source not in ("", "browser"):
            raise UsageError(
                "--in-browser runs the model in the page, on the camera there: leave --view and --source out"
            )
        if self.record or self.log:
            raise UsageError("--in-browser keeps everything in the page: --record and --log need the model to run here")
        if self.threads is not None:
            raise UsageError("--in-browser runs on one thread of the page: leave --threads out")
        if self.settings.region is not None:
            raise UsageError("--in-browser shows the model the whole picture: --roi needs the model to run here")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of them does not exist, or cannot be a file at all
        return one.absolute() == other.absolute()


class Voice(Protocol):
    """Where lines for the user go, and where answers come from."""

    def say(self, line: str) -> None:
        """Something worth knowing."""

    def warn(self, line: str) -> None:
        """Something that is not as it should be."""

    def error(self, line: str) -> None:
        """Something failed."""

    def ask(self, question: str) -> str:
        """What somebody answers in a line; "" where nobody is there."""
