"""Where the native runner lies on a device, and what starts it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from devices.errors import DeviceUnfit, RuntimeMissing
from devices.native.bundle import LIBRARIES, LIBRARY_FOLDER, RUNNER, bundle_loader, bundle_versions, runner_path

_PACKAGES = {"litert": ("ai_edge_litert", "ai-edge-litert"), "ort": ("onnxruntime", "onnxruntime")}


@dataclass(frozen=True, slots=True)
class Place:
    """How the runner is started on a device, and what it opens there.

    Attributes:
        command: the words before its own options.
        libraries: engine -> path of its shared library there.
        versions: engine -> "2.3.0"; LiteRT's library does not tell its own.
    """

    command: tuple[str, ...]
    libraries: Mapping[str, str]
    versions: Mapping[str, str]


def require_64_bit(name: str, arch: str, bits: int | None) -> None:
    """Refuse a device that no runtime exists for. bits: of the programs on it; None where it does not tell.

    Raises DeviceUnfit: another processor, or a 32-bit system, one on a 64-bit kernel included: what is deployed there
    would run in 32 bits, whatever a benchmark says.
    """
    if bits == 32 or arch.startswith(("armv6", "armv7", "armv8l", "i386", "i486", "i586", "i686")):
        kind = f"{arch}, 32-bit programs" if arch in ("aarch64", "arm64") else arch
        raise DeviceUnfit(f"{name} runs a 32-bit system ({kind}), which no runtime is made for: install the 64-bit OS")
    if arch not in ("aarch64", "arm64", "x86_64"):
        raise DeviceUnfit(f"{name} is {arch}: LiteRT and ONNX Runtime exist for aarch64 and x86_64")


def bundle_place(folder: str, arch: str = "aarch64") -> Place:
    """Say how to start what bundle.assemble made, unpacked in a folder on a device."""
    root = PurePosixPath(folder)
    library_folder = str(root / LIBRARY_FOLDER)
    return Place(
        command=(str(root / bundle_loader(arch)), "--library-path", library_folder, str(root / RUNNER)),
        libraries={engine: str(root / path) for engine, path in LIBRARIES.items()},
        versions=bundle_versions(arch),
    )


def local_place() -> Place:
    """Say how to start the shipped runner on this machine, with the libraries of the installed Python packages.

    Needs glibc 2.17 or newer. Raises RuntimeMissing elsewhere than on Linux, x86-64 or aarch64; an engine whose package
    is missing is left out.
    """
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    runner = runner_path(arch)
    if sys.platform != "linux" or not runner.is_file():
        raise RuntimeMissing(f"there is no native runner for {sys.platform} on {arch}: use the Python runtime here")
    if not os.access(runner, os.X_OK):  # an installer dropped the bit
        with suppress(OSError):
            runner.chmod(runner.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    found = {engine: library for engine in _PACKAGES if (library := _installed_library(engine)) is not None}
    versions = {engine: importlib.metadata.version(_PACKAGES[engine][1]) for engine in found}
    return Place((str(runner),), found, versions)


def _installed_library(engine: str) -> str | None:
    """Find an engine's shared library in its Python package, without importing that."""
    spec = importlib.util.find_spec(_PACKAGES[engine][0])
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        pattern = "libLiteRt.so" if engine == "litert" else "capi/libonnxruntime.so.[0-9]*"
        for path in sorted(Path(folder).glob(pattern)):
            return str(path)
    return None
