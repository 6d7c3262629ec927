"""Whom ssh is to call, and what its complaints mean."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from devices.errors import DeviceRefused, DeviceUnreachable, ShellError, UnknownDevice
from devices.shells.shell import last_line

# How ssh says what is wrong, and what it means. {who}: the device; {test}: a command to try; {forget}: one that drops
# the known host key.
_MEANINGS: tuple[tuple[str, type[ShellError], str], ...] = (
    (
        "HOST IDENTIFICATION HAS CHANGED",
        DeviceRefused,
        "the host key of {who} is not the one known here: it was reinstalled, or another machine answers in its place. "
        "If it was reinstalled: {forget}",
    ),
    (
        "Host key verification failed|host key is known for",
        DeviceRefused,
        "the host key of {who} is unknown here. Look at it and accept it once: {test}",
    ),
    (
        "UNPROTECTED PRIVATE KEY|bad permissions",
        DeviceRefused,
        "the key for {who} can be read by others, so ssh does not use it. Make it private: chmod 600 {key}",
    ),
    (
        "Permission denied|Too many authentication failures|No more authentication methods",
        DeviceRefused,
        "{who} does not accept our key ({line}). Copy it there (ssh-copy-id), or unlock it (ssh-add). Try: {test}",
    ),
    (
        r"Could not resolve hostname ([^:\s]+)",  # the one that ~/.ssh/config calls so, or jumps through
        DeviceUnreachable,
        "no machine answers to the name {0}: is it spelt so? Try: {test}",
    ),
    (
        r"channel \d+: open failed: (?:connect failed: )?([^\r\n]+)",
        DeviceUnreachable,
        "the machine on the way to {who} does not reach it: {0}. Try: {test}",
    ),
    (
        "Connection refused",
        DeviceUnreachable,
        "{who} is there and takes no ssh connections. Is sshd running on that port? Try: {test}",
    ),
    (
        "timed out|No route to host|Network is unreachable|Host is down",
        DeviceUnreachable,
        "no answer from {who} in {wait:g} s. Is it on? Try: {test}",
    ),
    (
        "Connection (closed|reset)|kex_exchange_identification",
        DeviceUnreachable,
        "{who} hung up before anyone could log in ({line}). Is it still starting? Try: {test}",
    ),
    (
        "[Bb]ad configuration option|Bad owner or permissions|Unable to negotiate",
        DeviceRefused,
        "ssh cannot connect to {who}: {line}. Try: {test}",
    ),
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a device answers. port: None for ssh's own choice."""

    host: str
    user: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read [ssh://][user@]host[:port]; host: a name, an IP address, or an entry in ~/.ssh/config.

        Raises UnknownDevice for anything else, above all what ssh would take for an option or a shell for a command.
        """
        user, at, where = text.removeprefix("ssh://").rstrip("/").rpartition("@")
        found = re.fullmatch(
            r"\[([^\[\]]+)\](?::(\d{1,5}))?|([^:\[\]]+):(\d{1,5})|([^:\[\]]+|[^\[\]]*:[^\[\]]*:[^\[\]]*)", where
        )
        host = (found[1] or found[3] or found[5] or "") if found else ""
        port = int(found[2] or found[4] or 22) if found else 0
        # What OpenSSH 9.6 refuses itself: a ProxyCommand of the user's may hand %h and %r to a shell.
        odd = re.search(r"[\s\x00-\x1f\x7f'\"`$\\;&<>|(){}]", user + host)
        if not host or odd or host.startswith("-") or user.startswith("-") or (at and not user) or not 0 < port < 65536:
            raise UnknownDevice(
                f"{text!r} is no address for ssh: write host, user@host, host:port or ssh://user@host:port"
            )
        return cls(host, user, port if found and (found[2] or found[4]) else None)


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call, and how.

    Attributes:
        name: the device, as the user calls it.
        address: where it answers.
        key: a private key file; None for the agent's and ~/.ssh/config's.
        options: more arguments for ssh.
        wait_s: until it must have answered.
    """

    name: str
    address: Address
    key: Path | None
    options: tuple[str, ...]
    wait_s: float

    def destination(self, key_file: Path | None) -> tuple[str, ...]:
        """Return ssh's arguments that say where to and as whom; key_file: where its key lies for ssh."""
        key = ("-i", str(key_file), "-oIdentitiesOnly=yes") if key_file else ()
        port = ("-p", str(self.address.port)) if self.address.port else ()
        user = ("-l", self.address.user) if self.address.user else ()
        return (*key, *self.options, *port, *user, "--", self.address.host)

    def test(self) -> str:
        """Return a command for a person to try."""
        key = ("-i", str(self.key)) if self.key else ()
        port = ("-p", str(self.address.port)) if self.address.port else ()
        at = f"{self.address.user}@" if self.address.user else ""
        return shlex.join(("ssh", *key, *port, f"{at}{self.address.host}", "true"))

    def failure(self, stderr: bytes) -> ShellError:
        """Say what ssh's complaint means."""
        text = stderr.decode(errors="replace")
        known = re.search(
            r"ssh-keygen (?:-f \S+ )?-R \S+", text
        )  # names the file and the host as they are written there
        port = self.address.port
        host = f"[{self.address.host}]:{port}" if port not in (None, 22) else self.address.host
        facts = {
            "who": self.name,
            "key": shlex.quote(str(self.key or "~/.ssh/id_*")),
            "line": last_line(stderr).rstrip("."),
            "wait": self.wait_s,
            "test": self.test(),
            "forget": known[0] if known else shlex.join(("ssh-keygen", "-R", host)),
        }
        for pattern, kind, meaning in _MEANINGS:
            found = re.search(pattern, text)
            if found:
                return kind(meaning.format(*found.groups(), **facts))
        return DeviceUnreachable("ssh does not reach {who}: {line}. Try: {test}".format(**facts))
