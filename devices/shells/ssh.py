"""A device reached through the OpenSSH client: the user's own keys, agent, ~/.ssh/config and known hosts."""

from __future__ import annotations

import secrets
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from devices.errors import DeviceLost, ShellError
from devices.shells.local import overdue
from devices.shells.shell import DEFAULT_TIMEOUT_S, Result, Script, pull_file, push_archive, result, script
from devices.shells.ssh_link import Link
from devices.shells.ssh_peer import Address, Peer


class SshShell:
    """A shell on a device over ssh; a `Shell`. It connects when first used, and again after the connection was lost.

    key: a private key file; the agent's and ~/.ssh/config's keys otherwise. options: more arguments for ssh. Host keys
    are checked as ssh does; an unknown one is never accepted for the user. Raises UnknownDevice for a wrong address.
    """

    def __init__(
        self,
        address: str,
        key: Path | None = None,
        name: str | None = None,
        connect_timeout_s: float = 10.0,
        options: Sequence[str] = (),
    ) -> None:
        where = Address.parse(address)
        key = key.expanduser().absolute() if key else None
        self._peer = Peer(name or address, where, key, tuple(options), connect_timeout_s)
        self._boot = "none"
        self._connections = 0
        self._lost: list[str] = []
        self._link: Link | None = None
        self._lock = threading.RLock()
        self._under_way: set[Script] = set()

    @property
    def name(self) -> str:
        """The device, as the user calls it."""
        return self._peer.name

    @property
    def root(self) -> str:
        """Absolute path of our folder on the device: ~/.cache/edgenet/device there, which is LocalShell's, too."""
        return self._connected().root

    @property
    def connections(self) -> int:
        """How often it has connected; see Shell."""
        return self._connections

    def run(self, command: Sequence[str], timeout_s: float = DEFAULT_TIMEOUT_S, stdin: bytes = b"") -> Result:
        """Run a program with its arguments; see Shell."""
        return self._send(command, timeout_s, stdin)

    def push(self, files: Mapping[str, Path], folder: str, timeout_s: float = 600.0) -> int:
        """Write files into a folder on the device as one archive; see Shell."""
        link = self._connected()
        incoming = f"{link.root}/incoming/{link.owner}{secrets.token_hex(4)}"
        return push_archive(self._send, self.name, incoming, files, folder, timeout_s)

    def pull(self, path: str, timeout_s: float = 60.0) -> bytes:
        """Read one file whole; see Shell."""
        return pull_file(self._send, self.name, path, timeout_s)

    def close(self) -> None:
        """End the connection and what we left running there; harmless twice. A later call connects again."""
        with self._lock:
            link, self._link = self._link, None
        if link:
            link.close(idle=not self._under_way)

    def __enter__(self) -> SshShell:
        self._connected()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _send(self, command: Sequence[str], timeout_s: float, stdin: bytes | IO[bytes]) -> Result:
        for _ in range(2):
            link = self._connected()
            sent = script(command, link.root, link.owner)
            self._under_way.add(sent)
            try:
                said = link.exchange(sent.text, timeout_s, stdin)
            except ShellError:
                raise
            except BaseException as exc:  # a timeout, Ctrl-C, whatever it is: nothing is left running there
                self._kill(link, sent)
                if isinstance(exc, subprocess.TimeoutExpired):
                    raise overdue(self.name, command, timeout_s) from None
                raise
            finally:
                self._under_way.discard(sent)
            if said is not None:
                break
            self._drop(link)  # it had ended since the last command: nothing was run yet
        else:
            raise DeviceLost(f"the connection to {self.name} ends as soon as it stands: is another one allowed there?")
        ended = result(sent, *said)
        if ended is None:
            lost = link.lost(command[0], said[1])
            self._drop(link)
            raise lost
        return ended

    def _kill(self, link: Link, sent: Script) -> None:
        """Kill a command on the device; where nobody answers, hang up: the watch there does it."""
        try:
            said = link.exchange(f"{sent.killer}; echo done", 3.0)
        except (subprocess.TimeoutExpired, ShellError):
            said = None
        if said is None or not said[0].endswith(b"done\n"):
            self._drop(link)

    def _connected(self) -> Link:
        with self._lock:
            if self._link and not self._link.open:
                self._drop(self._link)
            if self._link is None:
                self._link = Link(self._peer, self._boot, self._lost)
                self._boot, self._lost = self._link.boot, []
                self._connections += 1
            return self._link

    def _drop(self, link: Link) -> None:
        with self._lock:
            if self._link is link:
                self._link = None
                self._lost.append(link.owner)
        link.drop()
