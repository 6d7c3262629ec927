"""The pinned parts of a runtime bundle: fetched from a package index or a Debian mirror, and kept once they check."""

from __future__ import annotations

import http.client
import io
import os
import posixpath
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from devices.errors import BundleError
from devices.folders import cache_folder
from devices.runtimes.model_file import one_line, sha256

MIRROR_VARIABLE = "EDGENET_DEBIAN_MIRROR"

_AR_MAGIC, _AR_HEADER = b"!<arch>\n", 60
_PIP_S, _SOCKET_S = 600.0, 30.0


@dataclass(frozen=True, slots=True)
class Part:
    """One pinned file. pool: its path on a Debian mirror; platform: of a wheel. One of the two is ""."""

    name: str
    version: str
    file: str
    size: int
    sha256: str
    take: Mapping[str, str]  # file inside -> file in the bundle
    pool: str = ""
    platform: str = ""


def fetch(part: Part, mirrors: Sequence[str], offline: bool) -> Path:
    """Find a part in the cache, or get it; its hash is checked either way.

    mirrors: of Debian, asked in turn. offline: the cache alone. Raises BundleError; nothing unchecked is kept.
    """
    kept = cache_folder() / "parts" / part.sha256
    if kept.is_file() and sha256(kept) == part.sha256:
        return kept
    if offline:
        raise BundleError(f"{part.file} is not in the cache, and nothing may be fetched: assemble it online once")
    with _private_folder() as folder:
        got = _from_mirror(part, folder, mirrors) if part.pool else _from_index(part, folder)
        if sha256(got) != part.sha256:
            raise BundleError(
                f"{part.file} has not the pinned hash, and is not used: does a proxy answer in its source's place?"
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        got.replace(kept)
    return kept


def read_part(part: Part, path: Path) -> dict[str, bytes]:
    """Read the wanted files out of a fetched part: name in the bundle -> content; raises BundleError."""
    read = _read_package if part.pool else _read_wheel
    try:
        return read(path, part.take)
    except (KeyError, ValueError, zipfile.BadZipFile, tarfile.TarError, EOFError) as exc:  # though its hash is right
        raise BundleError(f"{part.file} is not what bundle.toml says of it ({one_line(str(exc), 120)})") from exc


def _read_wheel(path: Path, take: Mapping[str, str]) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {target: archive.read(source) for source, target in take.items()}


def _read_package(path: Path, take: Mapping[str, str]) -> dict[str, bytes]:
    """Read files of a .deb, links followed: an ar archive that holds data.tar.xz. Source: deb(5)."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(_ar_member(path.read_bytes(), b"data.tar")), mode="r:*") as archive:
        members = {member.name.removeprefix("./"): member for member in archive}
        for source, target in take.items():
            member = members[source]
            if member.issym():
                member = members[posixpath.normpath(f"{PurePosixPath(source).parent}/{member.linkname}")]
            content = archive.extractfile(member)
            if content is None:
                raise KeyError(source)
            found[target] = content.read()
    return found


def _ar_member(archive: bytes, prefix: bytes) -> bytes:
    """Give the member whose name begins so. Source: ar(5), the common format."""
    if not archive.startswith(_AR_MAGIC):
        raise ValueError("it is no ar archive")
    at = len(_AR_MAGIC)
    while at + _AR_HEADER <= len(archive):
        name, size = archive[at : at + 16], int(archive[at + 48 : at + 58])
        at += _AR_HEADER
        if name.startswith(prefix):
            return archive[at : at + size]
        at += size + size % 2
    raise KeyError(prefix.decode())


def _from_index(part: Part, folder: Path) -> Path:
    """Download a wheel with pip, which knows the user's index, proxy and certificates."""
    wanted = ["--platform", part.platform, "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command = [*_pip(), "download", "--no-deps", "--only-binary=:all:", *wanted, *quiet, "--dest", str(folder)]
    try:
        done = subprocess.run(
            [*command, f"{part.name}=={part.version}"],
            cwd=folder,  # not the current one: a pip.py there must not run
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise BundleError(f"pip did not get {part.file} in {_PIP_S:g} s: is the package index within reach?") from exc
    got = folder / part.file
    if not got.is_file():
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        said = one_line(errors[-1] if errors else done.stderr or "it gave another file", 160)
        raise BundleError(f"pip does not get {part.file} ({said}): is the package index within reach, and complete?")
    return got


def _pip() -> list[str]:
    """Find a pip: uv's environments have none of their own."""
    own = [sys.executable, "-m", "pip"]
    with suppress(OSError):  # an interpreter that is embedded has no program
        tried = subprocess.run([*own, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if tried.returncode == 0:
            return own
    found = shutil.which("pip") or shutil.which("pip3")
    if found is None:
        raise BundleError("pip is missing, which gets the runtimes: python -m ensurepip, or uv pip install pip")
    return [found]


def _from_mirror(part: Part, folder: Path, mirrors: Sequence[str]) -> Path:
    """Download a Debian package from the first mirror that has it."""
    own = os.environ.get(MIRROR_VARIABLE)
    refused = []
    for mirror in (own,) if own else mirrors:
        url = f"{mirror.rstrip('/')}/{urllib.parse.quote(part.pool, safe='/+~')}"
        try:
            with urllib.request.urlopen(url, timeout=_SOCKET_S) as answer:
                content = answer.read(part.size + 1)
        except urllib.error.HTTPError as exc:
            refused.append(f"{mirror}: {exc.code}")
        except (OSError, http.client.HTTPException, ValueError) as exc:  # ValueError: what was given is no address
            refused.append(f"{mirror}: {one_line(str(exc), 80)}")
        else:
            got = folder / part.file
            got.write_bytes(content)
            return got
    raise BundleError(
        f"{part.file} is on no Debian mirror that was asked ({'; '.join(refused)}): is the network up? If it was "
        f"withdrawn, set {MIRROR_VARIABLE} to a mirror that keeps old packages"
    )


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder in the cache, so that what is fetched into it can be renamed into place."""
    base = cache_folder() / "parts"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base, prefix=".incoming-") as folder:
        yield Path(folder)
