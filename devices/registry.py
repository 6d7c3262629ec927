"""The devices that the user has named, and how each is reached: devices.toml in the config folder.

    [devices.pi4]
    kind = "ssh"                      # or "adb"
    address = "pi@raspberrypi.local"  # or a phone's serial
    key = "/home/me/.ssh/id_pi"       # may be left out
    profile = "raspberry-pi-4b"       # may be left out: what the device tells of itself chooses it

Reachable without being named: `local`, `user@host`, `ssh://user@host:port`, `android:SERIAL`, and `android`: the phone
that $ANDROID_SERIAL names, or the only one there is.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from devices.errors import ProfileError, UnknownDevice
from devices.folders import config_folder
from devices.shells.shell import Shell
from devices.toml_file import parse_toml, read_text
from devices.whole_file import write_whole

ANDROID = "android:"
KINDS = ("ssh", "adb")

_HEAD = "# Devices that edgenet knows by name: edgenet devices add, remove.\n"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Target:
    """A device and how it is reached.

    Attributes:
        name: as the user calls it; for one that is not named, how it was addressed.
        kind: "local", "ssh" or "adb".
        address: host, user@host or ssh://user@host:port; a phone's serial, "" for the only one; "" for this machine.
        key: file of the ssh key; None: ssh chooses.
        profile: name of its profile; "": what the device tells of itself chooses it.
    """

    name: str
    kind: str
    address: str
    key: Path | None = None
    profile: str = ""


LOCAL = Target("local", "local", "")
ANY_PHONE = "android"


def devices_file() -> Path:
    """Path of the user's list of devices; it need not exist."""
    return config_folder() / "devices.toml"


def targets() -> tuple[Target, ...]:
    """List this machine and the devices that the user has named. Raises ProfileError where the list is wrong."""
    return (LOCAL, *_named())


def find(text: str) -> Target:
    """Find a device by its name or address. Raises UnknownDevice with the nearest names."""
    known = {target.name: target for target in targets()}
    if text in known:
        return known[text]
    if text == ANY_PHONE:
        return Target(text, "adb", "")
    if text.startswith(ANDROID) or text.startswith("ssh://") or "@" in text:
        return addressed(text, text)
    near = difflib.get_close_matches(text, known, 3, 0.5)
    said = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(known)};"
    how = "user@host and android:SERIAL need no name, edgenet devices add gives one"
    raise UnknownDevice(f"no device is called {text!r}: {said} {how}")


def addressed(name: str, address: str, key: Path | None = None, profile: str = "") -> Target:
    """Make a target of an address: android:SERIAL, or what ssh takes. Raises UnknownDevice where it is neither."""
    kind = "adb" if address.startswith(ANDROID) else "ssh"
    plain = address.removeprefix(ANDROID)
    # A leading dash would be read as an option by ssh and adb; ssh checks the host, too, but only newer ones the user.
    parts = plain.removeprefix("ssh://").split("@") if kind == "ssh" else [plain]
    if not all(parts) or not plain.isprintable() or any(part.startswith("-") for part in parts):
        raise UnknownDevice(f"{address!r} is no address: give user@host, ssh://user@host:port or android:SERIAL")
    if kind == "ssh" and any(letter.isspace() for letter in plain):
        raise UnknownDevice(f"{address!r} is no address: a host's name has no spaces")
    if kind == "ssh":
        from devices.shells.ssh_peer import Address

        Address.parse(address)
    if kind == "adb" and key is not None:
        raise UnknownDevice(f"{address!r} takes no key: adb has one of its own")
    return Target(name, kind, plain, key, profile)


def admit(target: Target) -> None:
    """Refuse a device that cannot be written into the list: ProfileError for a name that is taken or cannot be one."""
    if not _NAME.fullmatch(target.name):
        raise ProfileError(f"{target.name!r} cannot be a name: letters, digits, '.', '_' and '-', at most 64")
    if target.name in (LOCAL.name, ANY_PHONE):
        what = "this machine" if target.name == LOCAL.name else "the phone that adb sees"
        raise ProfileError(f"{target.name} cannot be a name: it is {what}; choose another one")
    if target.name in [one.name for one in targets()]:
        raise ProfileError(f"{target.name} is taken: edgenet devices remove {target.name}, or choose another name")
    if target.key is not None and not target.key.is_file():
        raise ProfileError(f"{target.key}: no such key file")
    if not str(target.key or "").isprintable():
        raise ProfileError(f"{str(target.key)!r}: a key's path must fit on one line")


def add(target: Target) -> None:
    """Write a device into the user's list. Raises ProfileError as `admit` does, or where the list is broken."""
    admit(target)
    known = _named()
    text = read_text(devices_file()) if devices_file().exists() else _HEAD
    _write(f"{text.rstrip()}\n\n{_section(target)}".lstrip(), (*known, target))


def remove(name: str) -> None:
    """Take a device off the user's list. Raises UnknownDevice where it is not on it."""
    known = _named()
    if name == LOCAL.name:
        raise UnknownDevice("local is this machine: it is always there")
    if name not in [one.name for one in known]:
        listed = ", ".join(one.name for one in known) or "none"
        raise UnknownDevice(f"{name} is not in {devices_file()}; named there: {listed}")
    _write(_without(read_text(devices_file()), name), tuple(one for one in known if one.name != name))


def open_shell(target: Target) -> Shell:
    """Give the shell that reaches a device; it connects when entered."""
    if target.kind == "local":
        from devices.shells.local import LocalShell

        return LocalShell()
    if target.kind == "adb":
        from devices.shells.adb import AdbShell

        # Whichever phone that is today goes by its serial: its results are not those of the next one.
        return AdbShell(target.address, None if target.name == ANY_PHONE else target.name)
    from devices.shells.ssh import SshShell

    return SshShell(target.address, target.key, target.name)


def _named() -> tuple[Target, ...]:
    path = devices_file()
    return _listed(path, read_text(path)) if path.exists() else ()


def _listed(path: Path, text: str) -> tuple[Target, ...]:
    file = parse_toml(path, text)
    listed = file.table("devices")
    found = []
    for name in listed.names():
        if not _NAME.fullmatch(name) or name == LOCAL.name:
            raise ProfileError(f"{path}: devices: {name!r} cannot be a device's name")
        entry = listed.table(name)
        kind = entry.choice("kind", KINDS)
        address = entry.text("address")
        key = Path(entry.text("key")).expanduser() if entry.has("key") else None
        profile = entry.text("profile") if entry.has("profile") else ""
        entry.finish()
        try:
            found.append(addressed(name, ANDROID + address if kind == "adb" else address, key, profile))
        except UnknownDevice as exc:
            raise ProfileError(f"{path}: devices: {name}: {exc}") from exc
    file.finish()
    return tuple(found)


def _write(text: str, listed: tuple[Target, ...]) -> None:
    """Replace the list, whole or not at all: by a text with what the user remarked in it, where it says just that."""
    path = devices_file().resolve()  # a link to it, as dotfiles are kept, stays one
    with contextlib.suppress(ProfileError):
        if _listed(path, text) == listed:
            write_whole(path, text.encode())
            return
    write_whole(path, "\n".join([_HEAD, *map(_section, listed)]).encode())  # it was written as an inline table, say


def _section(one: Target) -> str:
    values = {"kind": one.kind, "address": one.address, "key": str(one.key or ""), "profile": one.profile}
    lines = [f"{key} = {_quoted(value)}\n" for key, value in values.items() if value]
    return "".join([f"[devices.{_quoted(one.name)}]\n", *lines])


def _without(text: str, name: str) -> str:
    """Cut a device's table out of the list; remarks before and behind it stay."""
    lines = text.splitlines(keepends=True)
    heads = [at for at, line in enumerate(lines) if line.lstrip().startswith("[")]
    for at, end in zip(heads, (*heads[1:], len(lines)), strict=True):
        if re.fullmatch(rf"""\s*\[\s*devices\s*\.\s*(["']?){re.escape(name)}\1\s*\]\s*(#.*)?""", lines[at].rstrip()):
            last = max(i for i in range(at, end) if lines[i].strip() and not lines[i].lstrip().startswith("#"))
            return "".join(lines[:at] + lines[last + 1 :])
    return text


def _quoted(text: str) -> str:
    """Write a TOML string: JSON's rules are TOML's, but for DEL, which no printable text has."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ProfileError(f"{text!r} is not valid text") from exc
    return json.dumps(text, ensure_ascii=False)
