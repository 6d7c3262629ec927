"""A device for tests, reached over ssh: a real OpenSSH server on loopback, with keys and a home folder of its own.

It needs no rights: it runs as whoever runs the tests, on a free port, and lets in that user alone. What a session runs
is run on this machine, so its process table is the device's.
"""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pytest

from devices.shells.ssh import SshShell


class Sshd:
    """An OpenSSH server. A context manager; skips the test where none is installed.

    folder: an empty one, for everything it needs. config: more lines for sshd_config, before ours, so that they win.

    Attributes:
        home: of its only user.
        key: a private key it accepts.
        port: on 127.0.0.1, the same after a restart.
        known_hosts: what shell() and `bin`/ssh know; holds its host key.
        bin: a folder with an `ssh` that reads nothing of the user's, for PATH: then any program under test reaches it.
    """

    def __init__(self, folder: Path, config: Sequence[str] = ()) -> None:
        self._sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if not self._sshd or not shutil.which("ssh"):
            pytest.skip("no OpenSSH here: install openssh-server and openssh-client")
        self._folder = folder
        self._config = tuple(config)
        self._server: subprocess.Popen[bytes] | None = None
        self.home = folder / "home"
        self.key = folder / "key"
        self.known_hosts = folder / "known_hosts"
        self.bin = folder / "bin"
        self.port = free_port()

    @property
    def user(self) -> str:
        """Who may log in."""
        return getpass.getuser()

    @property
    def address(self) -> str:
        """Where it answers, as a user would write it."""
        return f"{self.user}@127.0.0.1:{self.port}"

    @property
    def root(self) -> Path:
        """Our folder there."""
        return self.home / ".cache" / "edgenet" / "device"

    @property
    def options(self) -> tuple[str, ...]:
        """Arguments for ssh: nothing of the user's own configuration, and these known hosts."""
        hosts = f"-oUserKnownHostsFile={self.known_hosts}"
        return ("-F", "/dev/null", hosts, "-oGlobalKnownHostsFile=/dev/null", "-oIdentityAgent=none")

    def shell(self, key: Path | None = None, name: str | None = "pi", wait_s: float = 5.0) -> SshShell:
        """Return a shell there, not connected yet."""
        return SshShell(self.address, key or self.key, name, wait_s, self.options)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it puts itself in before anybody logged in
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                (str(self._sshd), "-D", "-e", "-f", str(self._write_config())),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"sshd does not start: {self.log()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill the server and all its connections, as if its plug were pulled; what sessions run is left."""
        if self._server:
            self.hang_up()
            self._server.kill()
            self._server.wait()
            self._server = None

    def hang_up(self) -> None:
        """Kill all connections; the server stays."""
        assert self._server
        for pid in _descendants(self._server.pid):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)

    def freeze(self, frozen: bool = True, server: bool = True) -> None:
        """Stop all connections from doing anything, as if a cable were cut, and the server too; or let them go on."""
        assert self._server
        for pid in (*([self._server.pid] if server else []), *_descendants(self._server.pid)):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def trust(self) -> None:
        """Write the present host key into known_hosts."""
        public = (self._folder / "host").with_suffix(".pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")

    def new_host_key(self) -> None:
        """Give it another host key, which nobody knows; takes a restart."""
        new_key(self._folder / "host")

    def log(self) -> str:
        """What the server said."""
        return (self._folder / "log").read_text()

    def _write_config(self) -> Path:
        lines = (
            *self._config,
            "ListenAddress 127.0.0.1",
            f"Port {self.port}",
            f'HostKey "{self._folder}/host"',
            f'AuthorizedKeysFile "{self._folder}/key.pub"',
            f'SetEnv "HOME={self.home}"',
            f"AllowUsers {self.user}",
            "AuthenticationMethods publickey",
            "LogLevel ERROR",
            "PermitRootLogin prohibit-password",
            "PidFile none",
            "PrintMotd no",
            "StrictModes no",
            "UsePAM no",
        )
        path = self._folder / "sshd_config"
        path.write_text("\n".join(lines) + "\n")
        return path

    def __enter__(self) -> Sshd:
        self.home.mkdir()
        self.bin.mkdir()
        wrapper = self.bin / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join((str(shutil.which("ssh")), *self.options))} "$@"\n')
        wrapper.chmod(0o755)
        new_key(self.key)
        new_key(self._folder / "host")
        self.trust()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def new_key(path: Path) -> Path:
    """Make a pair of keys, in place of the one that lies there."""
    for old in (path, path.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)), check=True)
    return path


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found
