"""An Android phone: its shell and its files, through the adb binary.

adb keeps silent about much: it answers 0 for a command whose phone died under it and for a `connect` that failed,
leaves the phone's process running when its own client is killed, forgets a phone on the network when its server ends,
and calls such a phone "already connected" after the connection broke. Every call here names its phone (-s).
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from devices.child import exchange
from devices.errors import (
    DeviceError,
    DeviceFull,
    DeviceLost,
    DeviceRefused,
    DeviceUnfit,
    DeviceUnreachable,
    RuntimeMissing,
    ShellError,
)
from devices.shells.local import overdue
from devices.shells.shell import (
    DEFAULT_TIMEOUT_S,
    Result,
    Script,
    is_full,
    last_line,
    pull_file,
    push_archive,
    result,
    script,
)

ROOT = "/data/local/tmp/edgenet"  # below the one folder of a phone where its shell's user may execute files

_ADB_S = 10.0  # for adb itself to answer, its server's start included
_DIAL_S = 5.0  # for a phone on the network
_SETTLE_S = 1.0  # how long a phone may take to show up and be ready: it, or adb's server, has just been started
_RETURN_S = 8.0  # how long a phone that was lost is waited for
_MAX_COMMAND = 60_000  # bytes; adb hangs over one longer than four hex digits can say

_UNTRUSTED = "it does not trust this computer yet: accept the question on the phone's screen"
_UDEV = "apt install android-sdk-platform-tools-common, then plug it in again"
_STATES: Mapping[str, tuple[type[ShellError], str]] = {
    "unauthorized": (DeviceRefused, _UNTRUSTED),
    "authorizing": (DeviceRefused, _UNTRUSTED),
    "offline": (DeviceUnreachable, "it is offline: plug it in again, or switch USB debugging off and on"),
    "connecting": (DeviceUnreachable, "it is still connecting: wait, or plug it in again"),
    "no permissions": (DeviceRefused, f"this user may not open its USB port: {_UDEV}"),
}
_LISTED = re.compile(
    r"(?P<serial>\S.*?)\s+(?P<state>device|offline|unauthorized|authorizing|connecting|no permissions|recovery|"
    r"sideload|bootloader|rescue|host|unknown|detached)\b(?P<rest>.*)"
)
_ADDRESS = re.compile(r"[A-Za-z0-9.\[][A-Za-z0-9.:_%\]-]*:\d{1,5}")  # HOST:PORT, for adb connect
_SERVER_TALK = re.compile(rb"\A(?:(?:\* daemon |adb server version )[^\n]*\n)+")
_AWAY = re.compile(rb"(?:error|adb): (?:device\b|no devices|closed)")  # adb's words before anything has begun

# $1: our folder; $2: how our files there begin; $3: the boot at which we were here before: the pids of another boot are
# other people's.
_ARRIVE = """
b=; { read -r b </proc/sys/kernel/random/boot_id; } 2>/dev/null
mkdir -p "$1/run" "$1/incoming" || exit
printf '%s' "$b"; exec 2>/dev/null
find "$1/run" "$1/incoming" -mindepth 1 -maxdepth 1 -mmin +1440 -exec rm -rf {} +
[ "$b" = "$3" ] && for f in "$1/run/$2"*.pid; do
    [ -e "$f" ] && p=$(cat "$f") && [ -n "$p" ] && kill -s KILL -- "-$p"
done
rm -rf "$1/run/$2"* "$1/incoming/$2"*
"""


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone as adb lists it.

    Attributes:
        serial: what tells it from the others; HOST:PORT over the network.
        state: adb's word for it; "device" is ready.
        model: "" where the phone has not said.
        advice: what is wrong and what to do; "" where it is ready.
    """

    serial: str
    state: str
    model: str
    advice: str


def find_adb() -> Path:
    """Find the adb binary: on PATH, in the Android SDK, or the one in the package adbutils. Raises RuntimeMissing."""
    homes = filter(None, (os.environ.get("ANDROID_HOME"), os.environ.get("ANDROID_SDK_ROOT")))
    bundled = importlib.util.find_spec("adbutils")
    inside = (bundled and bundled.submodule_search_locations) or ()
    places = [*(f"{home}/platform-tools" for home in homes), *(f"{folder}/binaries" for folder in inside)]
    found = shutil.which("adb") or next(filter(None, (shutil.which("adb", path=place) for place in places)), None)
    if found is None:
        raise RuntimeMissing('adb is not installed: apt install adb, or pip install "edgenet[adb]"')
    return Path(found)


def phones(adb: Path | None = None) -> tuple[Phone, ...]:
    """List the phones that adb sees, ready or not; empty where there is none.

    Raises RuntimeMissing without adb, DeviceUnreachable where it does not work.
    """
    tool = adb or find_adb()
    words = f"no answer in {_ADB_S:g} s"
    for _ in range(2):  # a server that ends while it is asked is started afresh by the second call
        with suppress(subprocess.TimeoutExpired):
            stdout, stderr = _call(tool, ("devices", "-l"), _ADB_S)
            if b"List of devices attached" in stdout:
                lines = stdout.decode("utf-8", "replace").splitlines()
                return tuple(_phone(line) for line in map(_LISTED.fullmatch, lines) if line)
            words = last_line(stderr or stdout)
    raise DeviceUnreachable(f"adb does not work ({words}). Try: adb kill-server")


def _phone(line: re.Match[str]) -> Phone:
    state = line["state"]
    model = re.search(r"\bmodel:(\S+)", line["rest"])
    advice = "" if state == "device" else _trouble(state)[1]
    return Phone(line["serial"], state, model[1].replace("_", " ") if model else "", advice)


def _trouble(state: str) -> tuple[type[ShellError], str]:
    return _STATES.get(state, (DeviceUnreachable, f"it is in mode {state!r}: start Android on it"))


def _call(adb: Path, arguments: Sequence[str], timeout_s: float, stdin: bytes | IO[bytes] = b"") -> tuple[bytes, bytes]:
    """Run adb to its end; stdout and stderr, without what it says of its server. Raises subprocess.TimeoutExpired."""
    stdout, stderr = exchange((str(adb), *arguments), timeout_s, stdin)
    return stdout, _SERVER_TALK.sub(b"", stderr)


class AdbShell:
    """A phone's shell; a `Shell`. It connects when first used, and again after the connection was lost.

    serial: as `adb devices` lists it, or HOST:PORT; "": $ANDROID_SERIAL, or else the only phone.
    root: our folder on the phone; the default is $EDGENET_ADB_ROOT, or else /data/local/tmp/edgenet.
    Raises DeviceUnfit for Android 6 and older, whose adb keeps neither stderr nor the exit status apart.
    """

    def __init__(self, serial: str = "", name: str | None = None, adb: Path | None = None, root: str = "") -> None:
        self._serial = serial
        self._name = name
        self._adb = adb
        self._root = root or os.environ.get("EDGENET_ADB_ROOT") or ROOT
        self._owner = secrets.token_hex(4) + "-"
        self._boot = "none"
        self._connected = False
        self._connections = 0
        self._known = False  # it was connected since it was last closed: worth waiting for

    @property
    def name(self) -> str:
        """The phone, as the user calls it."""
        return self._name or f"android:{_shown(self._serial)}"

    @property
    def root(self) -> str:
        """Absolute path of our folder on the phone."""
        self._reach()
        return self._root

    @property
    def connections(self) -> int:
        """How often the phone was found; see Shell."""
        return self._connections

    def run(self, command: Sequence[str], timeout_s: float = DEFAULT_TIMEOUT_S, stdin: bytes = b"") -> Result:
        """Run a program with its arguments; see Shell. Raises ShellError for arguments beyond 60,000 bytes."""
        return self._send(command, timeout_s, stdin)

    def push(self, files: Mapping[str, Path], folder: str, timeout_s: float = 600.0) -> int:
        """Write files into a folder on the phone as one archive; see Shell."""
        incoming = f"{self.root}/incoming/{self._owner}{secrets.token_hex(4)}"
        return push_archive(self._send, self.name, incoming, files, folder, timeout_s)

    def pull(self, path: str, timeout_s: float = 60.0) -> bytes:
        """Read one file whole; see Shell."""
        return pull_file(self._send, self.name, path, timeout_s)

    def close(self) -> None:
        """End what a broken connection may have left running on the phone; harmless twice."""
        if self._known and not self._connected:
            with suppress(DeviceError):
                self._connect()
        self._connected = self._known = False

    def __enter__(self) -> AdbShell:
        self._reach()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _send(self, command: Sequence[str], timeout_s: float, stdin: bytes | IO[bytes]) -> Result:
        for _ in range(2):
            self._reach()
            sent = script(command, self._root, self._owner)
            if len(os.fsencode(sent.text)) > _MAX_COMMAND:
                raise ShellError(f"{command[0]!r} has arguments too long for adb ({_MAX_COMMAND:,} bytes): push a file")
            try:
                stdout, stderr = self._ask(("shell", "-T", sent.text), timeout_s, stdin)
            except ShellError:
                raise
            except BaseException as exc:  # a timeout, Ctrl-C, whatever it is: nothing is left running there
                self._kill(sent)
                if isinstance(exc, subprocess.TimeoutExpired):
                    raise overdue(self.name, command, timeout_s) from None
                raise
            ended = result(sent, stdout, stderr)
            if ended is not None:
                return ended
            self._connected = False
            if stdout or not _AWAY.match(stderr):
                raise DeviceLost(f"{self.name} was lost while {command[0]!r} ran there: check its cable and battery")
        raise DeviceUnreachable(f"{self.name} comes and goes ({last_line(stderr)}): check its cable")

    def _ask(self, arguments: Sequence[str], timeout_s: float, stdin: bytes | IO[bytes] = b"") -> tuple[bytes, bytes]:
        self._adb = self._adb or find_adb()
        return _call(self._adb, ("-s", self._serial, *arguments), timeout_s, stdin)

    def _kill(self, sent: Script) -> None:
        """Kill a command on the phone; where nobody answers, the next connection does."""
        self._connected = False  # as it stays where a second Ctrl-C comes
        with suppress(subprocess.TimeoutExpired, ShellError):
            self._connected = self._ask(("shell", "-T", f"{sent.killer}; echo done"), 5.0)[0] == b"done\n"

    def _reach(self) -> None:
        """Connect where that is to be done; be patient with a phone that shows up or comes back."""
        until = time.monotonic() + (_RETURN_S if self._known else _SETTLE_S)
        while not self._connected:
            try:
                self._connect()
            except (DeviceUnreachable, DeviceRefused):
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def _connect(self) -> None:
        self._adb = self._adb or find_adb()
        there = {phone.serial: phone.state for phone in phones(self._adb)}
        self._serial = self._serial or os.environ.get("ANDROID_SERIAL") or _only(there)
        words = _names(there)
        if there.get(self._serial) in (None, "offline") and _ADDRESS.fullmatch(self._serial):
            words = self._dial()
            there = {phone.serial: phone.state for phone in phones(self._adb)}
        state = there.get(self._serial)
        if not state:
            raise DeviceUnreachable(f"there is no phone {_shown(self._serial)} ({words}): plug it in and unlock it")
        if state != "device":
            error, advice = _trouble(state)
            raise error(f"{self.name} cannot be used: {advice}")
        try:
            self._arrive()
        except subprocess.TimeoutExpired:
            raise DeviceUnreachable(f"{self.name} gives no answer in {_ADB_S:g} s: plug it in again") from None
        self._connected = self._known = True
        self._connections += 1

    def _dial(self) -> str:
        """Connect adb to HOST:PORT; its answer, as its status says nothing."""
        try:
            self._ask(("disconnect", self._serial), _ADB_S)  # or else it is "already connected", while offline
            return last_line(b"".join(self._ask(("connect", self._serial), _DIAL_S)))
        except subprocess.TimeoutExpired:
            return f"no answer in {_DIAL_S:g} s"

    def _arrive(self) -> None:
        """Make our folder, and end what is left of us from before the connection broke."""
        features, complaint = self._ask(("features",), _ADB_S)
        if not complaint and b"shell_v2" not in features.split():
            raise DeviceUnfit(f"{self.name} keeps no exit status (no shell_v2): Android 7 or newer is needed")
        sent = script(("sh", "-c", _ARRIVE, "sh", self._root, self._owner, self._boot), "")
        stdout, stderr = self._ask(("shell", "-T", sent.text), _ADB_S)
        done = result(sent, stdout, stderr)
        if done is None:
            raise DeviceUnreachable(f"{self.name} gives us no shell ({last_line(stderr)}): plug it in again")
        if done.status:
            error, fix = (
                (DeviceFull, "make room there") if is_full(done) else (DeviceUnfit, "edgenet needs a folder there")
            )
            raise error(f"cannot make {self._root} on {self.name} ({last_line(done.stderr)}): {fix}")
        self._boot = done.stdout.decode("ascii", "replace")


def _names(there: Iterable[str]) -> str:
    listed = ", ".join(_shown(serial) for serial in there)
    return f"there are: {listed}" if listed else "there is none"


def _shown(text: str) -> str:
    """Quote what would break a line or hide in it."""
    return text if text.isprintable() and " " not in text else repr(text)


def _only(there: Mapping[str, str]) -> str:
    if not there:
        raise DeviceUnreachable("there is no phone: plug one in that has USB debugging on, or adb connect HOST:PORT")
    if len(there) > 1:
        raise DeviceUnreachable(f"there are {len(there)} phones, name one or set ANDROID_SERIAL ({_names(there)})")
    return next(iter(there))
