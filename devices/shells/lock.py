"""One edgenet at a time on a device: a lock that lies on the device itself, and says who holds it."""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import os
import secrets
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from devices.errors import DeviceBusy, DeviceFull, ShellError
from devices.shells.shell import Result, Shell, is_full, last_line

STALE_MIN = 15

_POLL_S = 1.0

# $1: our folder; $2: who takes it; $3: after how many minutes nobody holds it any more. Prints "taken", or "held" or
# "stale" and by whom. mkdir is what is atomic; between it and the holder's name there is a moment. cat: of a full disk,
# dash's own printf says "I/O error".
_TAKE = """
mkdir -p "$1" && cd "$1" || exit; held=
for try in 1 2 3; do
    if why=$(mkdir lock 2>&1); then
        printf '%s\\n' "$2" | cat >lock/holder && { echo taken; exit; }
        rm -rf lock; exit 1
    fi
    [ ! -d lock ] || { held=1; break; }
done
[ "$held" ] || { printf '%s\\n' "$why" >&2; exit 1; }
[ -e lock/holder ] || sleep 0.2 2>/dev/null || sleep 1
by=$(cat lock/holder 2>/dev/null)
f=lock/holder; [ -e "$f" ] || f=lock
[ -n "$(find "$f" -prune -mmin "+$3" 2>/dev/null)" ] && echo stale || echo held
printf '%s' "$by"
find lock -name 'after-*' -prune -mmin "+$3" -exec rmdir {} + 2>/dev/null; true
"""
# $3: what the holder to replace left there, $4: its name. Of several that come to replace the same one, only one makes
# the folder.
_TAKE_OVER = """
cd "$1/lock" && mkdir "after-$4" 2>/dev/null || exit 0
[ "$(cat holder 2>/dev/null)" = "$3" ] || { rmdir "after-$4"; exit 0; }
printf '%s\\n' "$2" >holder.new && mv -f holder.new holder && echo taken
"""
_REFRESH = 'cd "$1/lock" 2>/dev/null && grep -qF -- "$2" holder && touch holder && echo held; true'
_RELEASE = """
cd "$1" && grep -qF -- "$2" lock/holder 2>/dev/null && mv lock "lock.$2" && rm -rf "lock.$2"; true
"""
# Of one that was interrupted as it took it: it may have made the lock, and not yet written its name.
_ABANDON = f'{_RELEASE}[ ! -d "$1/lock" ] || [ -s "$1/lock/holder" ] || rm -rf "$1/lock"'


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a device.

    Attributes:
        user: and the machine it works at.
        pid: of its process there.
        since: when it took the device, in seconds since 1970 by its own clock.
        machine: which machine, boot and container the pid means anything on.
        token: of this one lock.
    """

    user: str
    pid: int
    since: float
    machine: str
    token: str

    def __str__(self) -> str:
        user = "".join(letter for letter in self.user if letter.isprintable())  # whoever wrote it there
        return f"{user} (process {self.pid}) since {datetime.fromtimestamp(self.since):%Y-%m-%d %H:%M:%S}"

    @property
    def dead(self) -> bool:
        """Whether its process is known to have ended."""
        if self.machine != _machine() or os.name != "posix":
            return False
        with suppress(PermissionError):
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
        return False


class DeviceLock:
    """A context manager inside which nobody else's edgenet uses the device.

    wait_s: how long to wait for another one to end. say: told for whom we wait. A lock that its holder did not
    refresh() for 15 minutes is taken from it. Raises DeviceBusy, which says who holds it; DeviceFull where there is no
    room for a lock; and what the shell raises.
    """

    def __init__(self, shell: Shell, wait_s: float = 0.0, say: Callable[[str], object] | None = None) -> None:
        self._shell = shell
        self._wait_s = wait_s
        self._say = say
        self._us = Holder(_user(), os.getpid(), 0.0, _machine(), "")
        self._said_s = -math.inf

    def __enter__(self) -> DeviceLock:
        self._us = Holder(_user(), os.getpid(), time.time(), _machine(), secrets.token_hex(8))
        try:
            self._wait()
        except KeyboardInterrupt:  # it may have been taken there by then, and nobody else would give it back
            self._give_back(_ABANDON)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._give_back(_RELEASE)

    def _give_back(self, script: str) -> None:
        with suppress(ShellError):  # a device that is gone: the lock on it ends with this process, or with time
            self._run(script, self._us.token)

    def _wait(self) -> None:
        """Take the device as soon as nobody holds it."""
        deadline = time.monotonic() + self._wait_s
        told: Holder | str | None = "nobody yet"
        while True:
            held, holder = self._take()
            if not held:
                self._said_s = time.monotonic()
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._busy(holder)
            if self._say and holder != told:
                self._say(f"{self._shell.name} is held by {holder or 'somebody'}: waiting up to {left:.0f} s for it")
                told = holder
            time.sleep(min(_POLL_S, left))

    def refresh(self, every_s: float = 0.0) -> None:
        """Say that we are still here; at least every few minutes. Raises DeviceBusy where another one took it over.

        every_s: nothing is done where that was said so recently.
        """
        if time.monotonic() - self._said_s < every_s:
            return
        if self._run(_REFRESH, self._us.token).stdout.strip() != b"held":
            held, holder = self._take()  # somebody deleted it, or it was taken over
            if held:
                raise self._busy(holder)
        self._said_s = time.monotonic()

    def _take(self) -> tuple[bool, Holder | None]:
        """Try; whether another one holds it, and who, as far as it is known."""
        line = json.dumps(asdict(self._us))
        word = rest = ""
        for _ in range(2):  # a lock without a name is one that is just being taken or left
            done = self._run(_TAKE, line, str(STALE_MIN))
            word, _, rest = os.fsdecode(done.stdout).partition("\n")
            if done.status or word not in ("taken", "held", "stale"):
                error = DeviceFull if is_full(done) else ShellError
                raise error(f"cannot lock {self._shell.name} in {self._shell.root!r}: {last_line(done.stderr)}")
            if word != "held" or rest:
                break
        holder = _read(rest)
        if word == "stale" or (word == "held" and holder and holder.dead):
            left = rest.rstrip("\n")
            over = self._run(_TAKE_OVER, line, left, hashlib.sha256(os.fsencode(left)).hexdigest()[:16])
            word = over.stdout.decode().strip()
        return word != "taken", holder

    def _run(self, script: str, *arguments: str) -> Result:
        return self._shell.run(("sh", "-c", script, "sh", self._shell.root, *arguments))

    def _busy(self, holder: Holder | None) -> DeviceBusy:
        who = f"held by {holder}" if holder else "held by somebody who left no name"
        return DeviceBusy(f"{self._shell.name} is {who}: wait until it is done, or end it there")


def _read(text: str) -> Holder | None:
    try:
        found = json.loads(text)
        holder = Holder(*(found[name] for name in Holder.__slots__))
        return holder if isinstance(holder.pid, int) and str(holder) else None
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None  # torn, or not ours


def _user() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container's user without a name
        return f"somebody@{socket.gethostname()}"


def _machine() -> str:
    """Return what two processes share for which a pid means the same."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"
