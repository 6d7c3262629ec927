"""A shell on a device: what ssh, adb and this machine have in common.

Every command runs in a process group of its own, whose id lies in a pid file while it runs, and ends with a trailer
that carries its status: adb answers 0 for a command whose device died under it, and ssh cannot tell its own 255 from
the command's. A command that lasts too long, or is interrupted here, is killed *there*.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Protocol

from devices.errors import DeviceFull, DeviceLost, ShellError

DEFAULT_TIMEOUT_S = 30.0

_TRAILER = "edgenet-status"
_LAST_MEMBER = ".edgenet-end"

# $1: a fresh folder; $2: where the files go. tar reads to the end of what comes, a torn archive included: only the last
# member tells that all of it came. -o -m: the files are ours and new, whatever the archive and the clocks say.
_UNPACK = f"""
LC_ALL=C; export LC_ALL; in=$1; to=$2
mkdir -p "$in" && tar -xomf - -C "$in" && [ -e "$in/{_LAST_MEMBER}" ] && rm "$in/{_LAST_MEMBER}" &&
mkdir -p "$to" && cd "$in" && find . -type f -exec sh -c '
    to=$0; for f do
        mkdir -p "$to/${{f%/*}}" && [ ! -d "$to/$f" ] && mv -f "$f" "$to/$f" || {{ rm -f "$to/$f"; exit 1; }}
    done' "$to" {{}} + && [ -z "$(find . -type f)" ]
s=$?; cd /; rm -rf "$in"
[ $s = 0 ] || df -Pk "${{in%/*}}"
exit $s
"""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended.

    Attributes:
        status: its exit status, 128 + signal where one killed it.
        stdout: what it printed, the trailer taken off.
        stderr: what it complained of.
    """

    status: int
    stdout: bytes
    stderr: bytes


class Shell(Protocol):
    """A POSIX shell on a device, and files to and from it. A context manager.

    Every method raises DeviceUnreachable, DeviceRefused, DeviceLost or CommandTimeout.
    """

    @property
    def name(self) -> str:
        """The device, as the user calls it."""

    @property
    def root(self) -> str:
        """Absolute path of our folder on the device, made if missing; what lies there can be executed."""

    @property
    def connections(self) -> int:
        """How often it has connected: more than before says that the device was lost in between."""

    def run(self, command: Sequence[str], timeout_s: float = DEFAULT_TIMEOUT_S, stdin: bytes = b"") -> Result:
        """Run a program with its arguments, quoted here; a script is ("sh", "-c", text, "sh", *arguments)."""

    def push(self, files: Mapping[str, Path], folder: str, timeout_s: float = 600.0) -> int:
        """Write files into a folder on the device as one archive; names: relative paths there.

        Returns:
            Bytes moved. Raises DeviceFull where there is no room; nothing half-written is left then.
        """

    def pull(self, path: str, timeout_s: float = 60.0) -> bytes:
        """Read one file whole. Raises ShellError where it does not exist."""

    def close(self) -> None:
        """End the connection and what we left running there; harmless twice."""

    def __enter__(self) -> Shell:
        """Connect."""

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""


@dataclass(frozen=True, slots=True)
class Script:
    """A command as it is sent to a device's shell.

    Attributes:
        text: for `sh -c`, or for the remote end of ssh and adb.
        killer: what ends the command and all that it started, or keeps it from starting.
        mark: how the trailer begins.
    """

    text: str
    killer: str
    mark: bytes


def script(command: Sequence[str], root: str, owner: str = "") -> Script:
    """Wrap a command: own session, pid file, a line on stdout before it, a status trailer after it.

    root: our folder on the device, or "" before it is known: then nothing can be killed there. owner: how the names of
    pid files begin, for whoever wants to find his own.
    """
    token = secrets.token_hex(8)
    mark = f"{_TRAILER}:{token}:"
    begin = f"trap : HUP; printf '{mark}begin\\n'"
    trailer = f"printf '\\n{mark}%d\\n' \"$s\""
    if not root:
        return Script(f"{begin}; {shlex.join(command)}; s=$?; {trailer}", "", mark.encode())
    pid = shlex.quote(f"{root}/run/{owner}{token}.pid")
    # The killer can overtake the command: it leaves a note, which the command looks for once its pid can be read.
    inner = 'echo $$ >"$1"; [ -e "$1.no" ] && exit 137; shift; exec "$@"'
    # macOS has no setsid; there LocalShell's own process group does.
    started = f"exec $(command -v setsid) sh -c {shlex.quote(inner)} sh {pid} {shlex.join(command)}"
    # What the shell itself says of a command that a signal killed would be mixed with what the command says.
    text = f"{begin}; {{ (exec 2>&3 3>&-; {started}); s=$?; }} 3>&2 2>/dev/null; rm -f {pid} {pid}.no; {trailer}"
    # dash takes "--" after -s KILL, not after -KILL.
    killer = f': >{pid}.no; p=$(cat {pid} 2>/dev/null) && kill -s KILL -- "-$p" "$p" 2>/dev/null; rm -f {pid}'
    return Script(text, killer, mark.encode())


def result(sent: Script, stdout: bytes, stderr: bytes) -> Result | None:
    """Take the trailer off; None where it is missing: the device died before the command ended.

    What a login shell's start-up files printed before the command is dropped.
    """
    found = re.search(rb"\n" + re.escape(sent.mark) + rb"(\d+)\r?\n\Z", stdout)
    if found is None:
        return None
    begin = re.search(re.escape(sent.mark) + rb"begin\r?\n", stdout)
    return Result(int(found[1]), stdout[begin.end() if begin else 0 : found.start()], stderr)


# Shell.run with bytes or a file as standard input.
Send = Callable[[Sequence[str], float, "bytes | IO[bytes]"], Result]


def push_archive(send: Send, name: str, incoming: str, files: Mapping[str, Path], folder: str, timeout_s: float) -> int:
    """Write files to a device as one tar archive on a command's standard input: Shell.push, for those who can do so.

    name: the device's, for messages. incoming: a folder that does not exist yet, on the same file system as `folder`.
    Returns the archive's bytes. Raises DeviceFull, ShellError and what `send` raises; ValueError for a name that leads
    out of the folder.
    """
    with pack(files) as archive:
        moved = os.fstat(archive.fileno()).st_size
        try:
            done = send(("sh", "-c", _UNPACK, "sh", incoming, folder), timeout_s, archive)
        except BaseException as exc:  # Ctrl-C, too
            if not isinstance(exc, DeviceLost):  # killed there in the middle
                with suppress(ShellError):
                    send(("rm", "-rf", "--", incoming), 10.0, b"")
            raise
    if done.status:
        raise not_unpacked(done, name, folder, moved)
    return moved


def pack(files: Mapping[str, Path]) -> IO[bytes]:
    """Write a tar archive to a temporary file: the same bytes for the same files; executable where the file is."""
    for name in files:
        if not name or PurePosixPath(name).is_absolute() or {"", ".", ".."} & set(name.split("/")) or "\0" in name:
            raise ValueError(f"{name!r} is no name for a file below a folder on a device")
    spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
    try:
        with tarfile.open(fileobj=spool, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
            for name, path in sorted(files.items()):
                if not path.is_file():
                    raise ShellError(f"there is no file {path} to push")
                with path.open("rb") as source:
                    state = os.fstat(source.fileno())
                    member = tarfile.TarInfo(name)
                    member.size = state.st_size
                    member.mode = 0o755 if state.st_mode & 0o100 else 0o644
                    archive.addfile(member, source)
            archive.addfile(tarfile.TarInfo(_LAST_MEMBER))
        spool.seek(0)
    except OSError as exc:
        spool.close()
        raise ShellError(f"cannot read what to push: {exc}") from exc
    except BaseException:  # ours from above, Ctrl-C: the caller never gets to close it
        spool.close()
        raise
    return spool


def pull_file(send: Send, name: str, path: str, timeout_s: float) -> bytes:
    """Read one file of a device: Shell.pull, for a shell whose stdout is binary."""
    read = send(("cat", "--", path), timeout_s, b"")
    if read.status:
        raise ShellError(f"cannot read {path!r} on {name}: {last_line(read.stderr)}")
    return read.stdout


def last_line(text: bytes) -> str:
    """Return the last line that says something, for a message of one line."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"


def is_full(done: Result) -> bool:
    """Tell whether a command failed as there is no room; "Wrote only" and "short write": GNU tar and busybox."""
    return re.search(rb"No space left|Wrote only|short write|quota exceeded", done.stderr, re.IGNORECASE) is not None


def not_unpacked(done: Result, name: str, folder: str, moved: int) -> ShellError:
    """Make the error for an archive that a device did not unpack; stdout: what `df -Pk` says there."""
    df = re.search(rb"\s(\d+)\s+\d+%\s", done.stdout)
    free = 1024 * int(df[1]) if df else None  # once what came is deleted again
    if is_full(done) or (free is not None and free < moved):
        room = "" if free is None else f" ({free / 1e6:.1f} MB are free)"
        return DeviceFull(f"no room on {name} for {moved / 1e6:.1f} MB in {folder!r}{room}: make room there")
    why = last_line(done.stderr.strip().partition(b"\n")[0])  # what follows the first is "exiting because of errors"
    return ShellError(f"{name} could not unpack what was pushed to {folder!r}: {why}")
