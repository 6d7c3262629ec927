"""Files and bundles on a device, by the sha256 of what they hold: sent once, checked there, bounded in size."""

from __future__ import annotations

import hashlib
import re
import secrets
import tarfile
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devices.errors import DeviceFull, DeviceLost, DeviceUnfit, ShellError
from devices.shells.shell import Result, Shell, last_line, not_unpacked

BUNDLES_KEPT = 3

_PUSH_S = 900.0  # a 40 MB bundle over a slow wireless network, on a slow card

# Which of the names are there, and how large; what was asked for counts as used. $1: our folder.
_ASK = """
LC_ALL=C; export LC_ALL; command -v sha256sum >/dev/null || exit 3
mkdir -p "$1/files" && cd "$1/files" && shift || exit
touch -c -- "$@"; wc -c -- "$@" 2>/dev/null; true
"""
# $1: our folder; $2: where the files came in. Names are hashes: whatever does not hash to its name stays out.
_SETTLE = """
LC_ALL=C; export LC_ALL; cd "$2" || exit
for f in *; do
    h=$(sha256sum <"$f") && [ "${h%% *}" = "${f%%.*}" ] || { cd /; rm -rf "$2"; exit 4; }
done
mkdir -p "$1/files" && mv -f -- * "$1/files/" && rmdir "$2"
"""
# The names in files/ with their sizes, the least recently used first.
_LIST = 'cd "$1/files" && names=$(ls -1tr) && [ -n "$names" ] && wc -c -- $names; true'
_DELETE = 'cd "$1/files" && shift && rm -f -- "$@"'

_HAVE_BUNDLE = """
command -v sha256sum >/dev/null || exit 3
[ -f "$1/bundles/$2/.complete" ] && touch "$1/bundles/$2" && echo have; true
"""
# $1: our folder; $2: the archive's sha256; $3: where it came in; $4: tar's option for its compression; $5: how many
# bundles stay. The card may lose power at any time: the marker is written when the rest is on it.
_UNPACK_BUNDLE = """
LC_ALL=C; export LC_ALL; to=$1/bundles/$2; cd "$3" || exit
unpack() {
    h=$(sha256sum <bundle) && [ "${h%% *}" = "$1" ] || return 4
    mkdir new && tar "-xom${2}f" bundle -C new && rm bundle || return 5
    sync; : >new/.complete && mkdir -p "${to%/*}" || return 5
    [ -f "$to/.complete" ] || { rm -rf "$to" && mv new "$to"; } || return 5
}
unpack "$2" "$4"; s=$?
cd /; rm -rf "$3"
[ $s = 0 ] || { df -Pk "$1"; exit $s; }
cd "${to%/*}" && ls -1t | tail -n "+$(($5 + 1))" | while read -r old; do rm -rf "./$old"; done
"""
_CLEAN = """
cd "$1" || exit; find files bundles incoming -type f -exec wc -c -- {} + 2>/dev/null
rm -rf files bundles && { [ ! -e incoming ] || find incoming -mindepth 1 -maxdepth 1 -exec rm -rf {} +; }
"""


@dataclass(frozen=True, slots=True)
class Put:
    """Where files lie on a device now.

    Attributes:
        paths: the path there of each file.
        moved_bytes: what went over the wire for it; 0 where all of them were there.
    """

    paths: dict[Path, str]
    moved_bytes: int


class Store:
    """Files on a device. limit_bytes: beyond it the least recently used are deleted.

    Its methods raise what the shell raises; DeviceFull where there is no room, DeviceUnfit where a tool is missing
    there, ShellError for what arrives damaged.
    """

    def __init__(self, shell: Shell, limit_bytes: int = 1 << 30) -> None:
        self._shell = shell
        self._limit_bytes = limit_bytes

    def put(self, files: Sequence[Path]) -> Put:
        """See to it that files lie on the device; a file there keeps its suffix, and whether it is executable."""
        names = {path: _hash(path) + _suffix(path) for path in files}
        if not names:
            return Put({}, 0)
        there = self._sizes(_ASK, *dict.fromkeys(names.values()))
        missing = {name: path for path, name in names.items() if there.get(name) != path.stat().st_size}
        moved = self._send(missing, set(names.values())) if missing else 0
        folder = f"{self._shell.root}/files"
        return Put({path: f"{folder}/{name}" for path, name in names.items()}, moved)

    def put_bundle(self, archive: Path) -> tuple[str, int]:
        """See to it that a tar archive (plain or gzip) is unpacked on the device; its folder there, and bytes moved.

        The last three bundles used stay there.
        """
        digest = _hash(archive)
        path = f"{self._shell.root}/bundles/{digest}"
        if self._ask(_HAVE_BUNDLE, digest).stdout.strip() == b"have":
            return path, 0
        try:
            return path, self._send_bundle(archive, digest, path)
        except DeviceFull:
            if not self._shrink((), 0):  # a cache never is the reason why there is no room
                raise
            return path, self._send_bundle(archive, digest, path)

    def clean(self) -> int:
        """Delete all files and bundles; the bytes that frees. What runs there is left alone, and so is the lock."""
        return sum(self._sizes(_CLEAN).values())

    def _send_bundle(self, archive: Path, digest: str, path: str) -> int:
        with archive.open("rb") as file:
            packed = "z" if file.read(2) == b"\x1f\x8b" else ""
        incoming = f"{self._shell.root}/incoming/bundle-{secrets.token_hex(4)}"
        moved = self._shell.push({"bundle": archive}, incoming, _PUSH_S)
        done = self._settle(_UNPACK_BUNDLE, incoming, digest, incoming, packed, str(BUNDLES_KEPT))
        if done.status == 4:
            raise self._damaged()
        if done.status:
            raise not_unpacked(done, self._shell.name, path, moved + _unpacked_bytes(archive))
        return moved

    def _send(self, missing: dict[str, Path], keep: set[str]) -> int:
        incoming = f"{self._shell.root}/incoming/files-{secrets.token_hex(4)}"
        try:
            moved = self._shell.push(missing, incoming, _PUSH_S)
        except DeviceFull:
            if not self._shrink(keep, 0):  # a cache never is the reason why there is no room
                raise
            moved = self._shell.push(missing, incoming, _PUSH_S)
        done = self._settle(_SETTLE, incoming, incoming)
        if done.status == 4:
            raise self._damaged()
        self._check(done)
        self._shrink(keep, self._limit_bytes)
        return moved

    def _shrink(self, keep: Collection[str], limit_bytes: int) -> int:
        """Delete the least recently used files until the rest fits, but for those to keep; how many were deleted."""
        sizes = self._sizes(_LIST)
        excess = sum(sizes.values()) - limit_bytes
        old = []
        for name, size in sizes.items():
            if excess > 0 and name not in keep:
                old.append(name)
                excess -= size
        if old:
            self._ask(_DELETE, *old)
        return len(old)

    def _sizes(self, script: str, *arguments: str) -> dict[str, int]:
        """Run a script that prints what `wc -c` prints, of names without white space; sizes in that order."""
        lines = self._ask(script, *arguments).stdout.decode(errors="replace").splitlines()
        found = [line.split(maxsplit=1) for line in lines]
        return {name: int(size) for size, name in found if name != "total"}

    def _settle(self, script: str, incoming: str, *arguments: str) -> Result:
        try:
            return self._run(script, *arguments)
        except BaseException as exc:  # Ctrl-C, too: nothing half written stays where it can still be reached
            if not isinstance(exc, DeviceLost):
                with suppress(ShellError):
                    self._shell.run(("rm", "-rf", "--", incoming))
            raise

    def _ask(self, script: str, *arguments: str) -> Result:
        done = self._run(script, *arguments)
        self._check(done)
        return done

    def _run(self, script: str, *arguments: str) -> Result:
        return self._shell.run(("sh", "-c", script, "sh", self._shell.root, *arguments), 300.0)

    def _check(self, done: Result) -> None:
        if done.status == 3:
            raise DeviceUnfit(
                f"{self._shell.name} has no sha256sum to check files with: install coreutils or busybox there"
            )
        if done.status:
            raise ShellError(
                f"{self._shell.name} could not keep files in {self._shell.root!r}: {last_line(done.stderr)}"
            )

    def _damaged(self) -> ShellError:
        return ShellError(f"what arrived on {self._shell.name} is not what was sent, or changed meanwhile: try again")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as exc:
        raise ShellError(f"cannot read {path} to send it to a device: {exc.strerror}") from exc
    return digest.hexdigest()


def _unpacked_bytes(archive: Path) -> int:
    try:
        with tarfile.open(archive) as members:
            return sum(member.size for member in members)
    except (OSError, tarfile.TarError, EOFError, zlib.error):
        return 0


def _suffix(path: Path) -> str:
    return path.suffix if re.fullmatch(r"\.[A-Za-z0-9_]{1,16}", path.suffix) else ""
