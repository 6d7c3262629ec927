"""The runtime bundle: what a device without Python needs to run model files, as one archive of pinned parts.

bundle.toml names every part with its version and hash. Wheels come from the user's own package index, through pip;
Debian packages from a mirror. A part is used only if its hash is the pinned one; afterwards no network is needed.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from devices.errors import BundleError
from devices.folders import cache_folder
from devices.native.bundle_parts import Part, fetch, read_part
from devices.runtimes.model_file import sha256
from devices.whole_file import write_whole

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Where things lie in an unpacked bundle.
RUNNER = "edgenet-runner"
LIBRARY_FOLDER = "lib"
LIBRARIES: Mapping[str, str] = {"litert": "lib/libLiteRt.so", "ort": "lib/libonnxruntime.so"}

_ENGINE_OF = {"ai-edge-litert": "litert", "onnxruntime": "ort"}

Progress = Callable[[int, int, str], None]  # (done, of how many, what is next)


def architectures() -> tuple[str, ...]:
    """List those that a bundle can be assembled for."""
    return tuple(name for name, value in _pins().items() if isinstance(value, dict))


def bundle_loader(arch: str) -> str:
    """Name the dynamic loader in the bundle of an architecture."""
    return str(_section(arch)["loader"])


def bundle_versions(arch: str) -> dict[str, str]:
    """Give the version of each engine in the bundle of an architecture."""
    return {_ENGINE_OF[part.name]: part.version for part in _parts(arch) if part.name in _ENGINE_OF}


def runner_path(arch: str) -> Path:
    """Say where the runner of an architecture lies in this package."""
    return Path(__file__).parents[1] / "runner" / "bin" / f"edgenet-runner-{arch}"


def assemble(arch: str = "aarch64", progress: Progress | None = None, offline: bool = False) -> Path:
    """Make the bundle of an architecture, or find the one made before: a tar archive, the same bytes every time.

    offline: fetch nothing. Raises BundleError: a part cannot be had, its hash differs (it is not kept), no room.
    """
    parts = _parts(arch)
    mirrors = tuple(map(str, _pins()["mirrors"]))
    runner = runner_path(arch)
    name = f"edgenet-{arch}-{_key(arch, runner)}.tar"
    try:
        archive = cache_folder() / "bundles" / name
        if _is_whole(archive):
            return archive
        files: dict[str, bytes] = {RUNNER: runner.read_bytes(), "LICENSES/SOURCES.txt": _sources(parts)}
        for done, part in enumerate(parts):
            if progress:
                progress(done, len(parts), part.file)
            files.update(read_part(part, fetch(part, mirrors, offline)))
        if progress:
            progress(len(parts), len(parts), "")
        packed = _pack(files)
        write_whole(archive, packed)
        write_whole(_mark(archive), hashlib.sha256(packed).hexdigest().encode())
    except OSError as exc:
        raise BundleError(f"the bundle cannot be written: {exc}: make room, or set EDGENET_CACHE_HOME") from exc
    return archive


@cache
def _pins() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parents[1] / "bundle.toml").read_text(encoding="utf-8"))


def _section(arch: str) -> dict[str, Any]:
    section = _pins().get(arch)
    if not isinstance(section, dict):
        raise BundleError(f"there is no bundle for {arch}: there is one for {' and '.join(architectures())}")
    return section


def _parts(arch: str) -> tuple[Part, ...]:
    section = _section(arch)
    wheels = [Part(**values) for values in section["wheel"]]
    packages = [Part(file=PurePosixPath(values["pool"]).name, **values) for values in section["package"]]
    return (*wheels, *packages)


def _key(arch: str, runner: Path) -> str:
    """Hash what a bundle is made of, so that another version of us makes another file."""
    try:
        made_of = json.dumps([arch, _section(arch), sha256(runner)], sort_keys=True)
    except OSError as exc:
        raise BundleError(f"the runner for {arch} is missing ({exc}): install edgenet again") from exc
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def _sources(parts: tuple[Part, ...]) -> bytes:
    lines = [
        f"{part.name} {part.version}: {part.file} ({'Debian 12' if part.pool else 'PyPI'}), sha256 {part.sha256}"
        for part in parts
    ]
    return "\n".join(["Where the files beside this one come from, with their source code:", *lines, ""]).encode()


def _mark(archive: Path) -> Path:
    return archive.with_suffix(".sha256")


def _is_whole(archive: Path) -> bool:
    """Say whether an archive is there, and as it was written."""
    try:
        return _mark(archive).read_text().strip() == sha256(archive)
    except (OSError, UnicodeDecodeError):
        return False


def _pack(files: Mapping[str, bytes]) -> bytes:
    """Make a tar archive that depends on names and contents alone."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644 if name.startswith("LICENSES/") else 0o755
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
