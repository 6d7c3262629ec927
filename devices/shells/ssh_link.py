"""One ssh connection: opened, shared by all commands (ControlMaster), and what its failures mean.

The connection's own session stays on the device as a watch: when the connection ends, however it ends (close, a crash
here, a cut cable that sshd noticed), the watch kills what we left running there.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from devices.child import exchange, reap, uninterrupted
from devices.errors import DeviceLost, DeviceRefused, DeviceUnfit, DeviceUnreachable, ShellError
from devices.shells.shell import last_line
from devices.shells.ssh_peer import Peer

# What the user's configuration may say for a person at a terminal, and must not do to us. LogLevel: the reason of a
# failure is read from stderr. A device that is gone is noticed in 3 x 3 s.
_SOBER = (
    "-T",
    "-x",
    "-a",
    "-oBatchMode=yes",
    "-oClearAllForwardings=yes",
    "-oConnectionAttempts=1",
    "-oControlPersist=no",
    "-oEscapeChar=none",
    "-oLogLevel=ERROR",
    "-oPermitLocalCommand=no",
    "-oRemoteCommand=none",
    "-oRequestTTY=no",
    "-oServerAliveCountMax=3",
    "-oServerAliveInterval=3",
    "-oTunnel=no",
)
# A client that finds no master would quietly open a connection of its own, past all of the above: this is said instead.
_NO_MASTER = "edgenet-no-master"
_GREETING = "edgenet-here"
_CLIENT = ("-F", "/dev/null", *_SOBER, "-oControlMaster=no", f"-oProxyCommand=sh -c 'echo {_NO_MASTER} >&2'")

# $1: how the files of this connection begin; $2: what to say first; $3: the boot at which we were here before; then how
# the files of earlier connections begin, which were lost. Pids of another boot are other people's. The watch of a lost
# connection may hear of its end much later than we: it looks after what was its own alone.
_WATCH = """
umask 077; r=$HOME/.cache/edgenet/device; me=$1; hello=$2; boot=$3; shift 3
b=; { read -r b </proc/sys/kernel/random/boot_id; } 2>/dev/null
end() {
    for f in "$r/run/$1"*.pid; do
        [ -e "$f" ] && p=$(cat "$f") && [ -n "$p" ] && [ "$2" = "$b" ] && kill -s KILL -- "-$p"
    done
    rm -rf "$r/run/$1"* "$r/incoming/$1"*
}
why=$(mkdir -p "$r/run" 2>&1 && mkdir -p "$r/incoming" 2>&1) || { printf '\\n%s no\\n%s\\n\\n' "$hello" "$why"; exit; }
exec 2>/dev/null
find "$r/run" "$r/incoming" -mindepth 1 -maxdepth 1 -mmin +1440 -exec rm -rf {} +
for lost; do end "$lost" "$boot"; done
printf '\\n%s yes\\n%s\\n%s\\n' "$hello" "$r" "$b"
while read -r word; do [ "$word" != bye ] || { end "$me" "$b"; exit; }; done
end "$me" "$b"; sleep 1; end "$me" "$b"
"""


class Link:
    """An open connection. Closed by whoever opened it; it ends by itself when this process does.

    boot: the id of the device's boot when we were last there. lost: the owners of links before this one that were lost.

    Attributes:
        owner: how the names of its files there begin.
        root: our folder there.
        boot: the id of the device's boot.

    Raises DeviceUnreachable, DeviceRefused, and DeviceUnfit where our folder cannot be made.
    """

    def __init__(self, peer: Peer, boot: str, lost: Sequence[str]) -> None:
        if peer.key and not peer.key.is_file():
            raise DeviceRefused(f"there is no key file {peer.key} for {peer.name}: name another one")
        self._peer = peer
        self.owner = secrets.token_hex(4) + "-"
        # A socket's path is short, and ssh expands % and $ in it.
        base = tempfile.gettempdir()
        self._folder = Path(
            tempfile.mkdtemp(prefix="edgenet-", dir=base if re.fullmatch(r"[\w./-]{1,50}", base) else "/tmp")
        )
        try:
            with (self._folder / "stderr").open("wb") as stderr, uninterrupted():
                self._master = self._start(stderr, boot, lost)
            self.root, self.boot = self._greeting()
        except BaseException:  # no error, and no Ctrl-C, leaves ssh behind
            self.drop()
            raise

    @property
    def open(self) -> bool:
        """Whether the connection stands, as far as we know."""
        return self._master.poll() is None

    def exchange(self, text: str, timeout_s: float, stdin: bytes | IO[bytes] = b"") -> tuple[bytes, bytes] | None:
        """Run a script over the connection; stdout and stderr, or None: there is no connection and nothing was run.

        Raises subprocess.TimeoutExpired, DeviceRefused.
        """
        argv = ("ssh", *_CLIENT, "-S", str(self._folder / "s"), "--", "device", any_shell(text))
        stdout, stderr = exchange(argv, timeout_s, stdin, env={**_environment(), "SHELL": "/bin/sh"})
        if stdout:  # a script's first line says that it began
            return stdout, stderr
        if b"refused by peer" in stderr:
            raise DeviceRefused(f"{self._peer.name} allows no more commands at once: raise MaxSessions in sshd_config")
        return None if _NO_MASTER.encode() in stderr else (stdout, stderr)

    def lost(self, command: str, stderr: bytes) -> DeviceLost:
        """Make the error for a command that came back without its status."""
        with suppress(subprocess.TimeoutExpired):
            self._master.wait(0.5)  # it may have a better reason
        why = last_line(self._complaint() or stderr)
        peer = self._peer
        return DeviceLost(f"{peer.name} was lost while {command!r} ran there ({why}). Is it on? Try: {peer.test()}")

    def close(self, idle: bool = True) -> None:
        """End the connection in order. idle: nothing runs there; else the watch looks twice for it."""
        if self._master.stdin and idle:
            with suppress(OSError):
                self._master.stdin.write(b"bye\n")
        with suppress(OSError, subprocess.TimeoutExpired):
            self._hang_up()
            self._master.wait(3.0)
        self.drop()

    def drop(self) -> None:
        """End the connection at once."""
        master = getattr(self, "_master", None)
        if master is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(master.pid, signal.SIGKILL)  # and what it jumps through
            reap(master)
            with suppress(OSError):
                self._hang_up()
            if master.stdout:
                master.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hang_up(self) -> None:
        if self._master.stdin:
            self._master.stdin.close()

    def _start(self, stderr: IO[bytes], boot: str, lost: Sequence[str]) -> subprocess.Popen[bytes]:
        watch = any_shell(shlex.join(("sh", "-c", _WATCH, "sh", self.owner, _GREETING, boot, *lost)))
        argv = ("ssh", *_SOBER, "-M", "-S", str(self._folder / "s"), f"-oConnectTimeout={math.ceil(self._peer.wait_s)}")
        try:
            return subprocess.Popen(
                (*argv, *self._peer.destination(self._key_file()), watch),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is not for it: it carries what ends the commands there
                env=_environment(),
            )
        except OSError as exc:
            raise DeviceUnreachable(f"cannot run ssh ({exc.strerror}): install the OpenSSH client") from exc

    def _key_file(self) -> Path | None:
        """Say where the key lies. ssh expands % and ${} in the path, and takes no escape for all of them: a link."""
        key = self._peer.key
        if key is None or not re.search(r"%|\$\{", str(key)):
            return key
        for suffix in ("", ".pub", "-cert.pub"):  # what ssh looks for beside it
            if Path(f"{key}{suffix}").exists():
                (self._folder / f"key{suffix}").symlink_to(f"{key}{suffix}")
        return self._folder / "key"

    def _greeting(self) -> tuple[str, str]:
        """Wait for what the watch says first: our folder, and the device's boot."""
        assert self._master.stdout
        heard, wait = b"", self._peer.wait_s
        deadline, logged_in = time.monotonic() + 2 * wait, False
        while time.monotonic() < deadline:
            if select.select([self._master.stdout], [], [], 0.05)[0]:
                more = self._master.stdout.read(4096)
                if not more:
                    raise self._no_greeting(heard)
                heard += more
            found = re.search(rf"{_GREETING} (yes|no)\n([^\n]*)\n(\S*)\n".encode(), heard)
            if found and found[1] == b"yes":
                return os.fsdecode(found[2]), found[3].decode()
            if found:
                raise DeviceUnfit(f"cannot make our folder on {self._peer.name}: {last_line(found[2])}")
            if not logged_in and (self._folder / "s").exists():
                deadline, logged_in = time.monotonic() + wait, True
        raise self._mute() if logged_in else self._peer.failure(self._complaint() or b"timed out")

    def _no_greeting(self, heard: bytes) -> ShellError:
        with suppress(subprocess.TimeoutExpired):
            self._master.wait(2.0)
        return self._peer.failure(self._complaint()) if self._master.returncode == 255 else self._mute(heard)

    def _mute(self, heard: bytes = b"") -> DeviceRefused:
        said = f" ({last_line(heard)})" if heard.strip() else ""
        peer = self._peer
        return DeviceRefused(
            f"{peer.name} lets us in but runs no commands for us{said}: give this user a shell. Try: {peer.test()}"
        )

    def _complaint(self) -> bytes:
        with suppress(FileNotFoundError):  # closed meanwhile by another thread
            return (self._folder / "stderr").read_bytes()
        return b""


def any_shell(text: str) -> str:
    """Quote a POSIX script for a login shell that need not be one: sh, fish and csh take this the same way."""

    def octal(found: re.Match[bytes]) -> bytes:
        return b"".join(b"\\0%03o" % byte for byte in found[0])

    # fish reads \\ and \' between single quotes, csh reads ! there and ends the line at a newline.
    coded = re.sub(rb"['\\!\x00-\x1f\x7f-\xff]", octal, os.fsencode(text)).decode()
    return f"exec sh -c 'eval \"$(printf %b \"$1\")\"' sh '{coded}'"


def _environment() -> dict[str, str]:
    # Complaints that we can read, and no window that asks: a jump host's ssh does not know that nobody answers.
    return {**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
