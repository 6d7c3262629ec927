"""The runtime bundle: the same bytes every time, nothing unchecked in it, and no network once it was made."""

from __future__ import annotations

import hashlib
import http.server
import io
import lzma
import os
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.errors import BundleError
from devices.native import bundle
from devices.native.bundle import architectures, assemble, bundle_loader, bundle_versions, runner_path
from devices.native.bundle_parts import MIRROR_VARIABLE
from devices.native.place import bundle_place

WHEEL = "ai_edge_litert-9.9.9-cp311-cp311-manylinux_2_27_aarch64.whl"
PACKAGE = "libc6_1.0+b~1_arm64.deb"

# Of the bundle that the made-up parts below make, on any Python.
MADE_UP = "ba0c4903"


def deb(files: dict[str, bytes], links: dict[str, str], name: bytes = b"data.tar.xz") -> bytes:
    """Write a Debian package: an ar archive of three members, the middle one of odd size."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for path, target in links.items():
            member = tarfile.TarInfo(f"./{path}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    parts = {b"debian-binary": b"2.0\n", b"control.tar.xz": b"odd", name: lzma.compress(data.getvalue())}
    packed = b"!<arch>\n"
    for part, content in parts.items():
        packed += b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (part, 0, 0, 0, 0o644, len(content))
        packed += content + b"\n" * (len(content) % 2)
    return packed


def wheel(files: dict[str, bytes]) -> bytes:
    """Write a wheel as pip wants one."""
    packed = io.BytesIO()
    info = "ai_edge_litert-9.9.9.dist-info"
    metadata = {f"{info}/METADATA": b"Metadata-Version: 2.1\nName: ai-edge-litert\nVersion: 9.9.9\n"}
    metadata[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_27_aarch64\n"
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in {**files, **metadata, f"{info}/RECORD": b""}.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return packed.getvalue()


class World:
    """A package index and a Debian mirror of our own, and pins for what lies there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.served = folder / "served"
        self.pool = self.served / "debian" / "pool" / "main" / PACKAGE
        self.wheel = self.served / "simple" / "ai-edge-litert" / WHEEL
        for path in (self.pool, self.wheel):
            path.parent.mkdir(parents=True)
        files = {"lib/libc.so.6": b"libc", "usr/lib/real.so.6.1": b"real"}
        self.package = deb(files, links={"usr/lib/real.so.6": "real.so.6.1"})
        self.pool.write_bytes(self.package)
        self.wheel.write_bytes(wheel({"ai_edge_litert/libLiteRt.so": b"litert"}))
        index = self.wheel.parent / "index.html"
        index.write_text(f'<!DOCTYPE html><html><body><a href="{WHEEL}">{WHEEL}</a></body></html>')
        self.asked: list[str] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.runner = folder / "runner"
        self.runner.write_bytes(b"runner")
        litert = self._pin(self.wheel, "ai-edge-litert", "9.9.9", {"ai_edge_litert/libLiteRt.so": "lib/l.so"})
        libc = self._pin(self.pool, "libc6", "1.0", {"lib/libc.so.6": "ld.so", "usr/lib/real.so.6": "lib/r"})
        self.pins: dict[str, Any] = {
            "mirrors": [f"{self.url}/gone", f"{self.url}/debian/"],
            "aarch64": {
                "loader": "ld.so",
                "wheel": [{**litert, "file": WHEEL, "platform": "manylinux_2_27_aarch64"}],
                "package": [{**libc, "pool": f"pool/main/{PACKAGE}"}],
            },
        }
        monkeypatch.setattr(bundle, "_pins", lambda: self.pins)
        monkeypatch.setattr(bundle, "runner_path", lambda arch: self.runner)
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{self.url}/simple")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
        self.move(folder / "cache", monkeypatch)

    def move(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = cache
        monkeypatch.setenv("EDGENET_CACHE_HOME", str(cache))

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.cache.rglob("*") if path.is_file())

    @staticmethod
    def _pin(path: Path, name: str, version: str, take: dict[str, str]) -> dict[str, Any]:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return {"name": name, "version": version, "size": len(content), "sha256": digest, "take": take}

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        world = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, directory=str(world.served), **kwargs)

            def do_GET(self) -> None:
                world.asked.append(self.path)
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.server.shutdown()
    world.server.server_close()


def test_a_bundle_holds_what_was_pinned(world: World) -> None:
    steps: list[tuple[int, int, str]] = []
    archive = assemble("aarch64", lambda *step: steps.append(step))
    with tarfile.open(archive) as files:
        held = {member.name: (member.mode, files.extractfile(member).read()) for member in files}  # type: ignore[union-attr]
    sources = held.pop("LICENSES/SOURCES.txt")
    assert held == {
        "edgenet-runner": (0o755, b"runner"),
        "ld.so": (0o755, b"libc"),
        "lib/l.so": (0o755, b"litert"),
        "lib/r": (0o755, b"real"),  # through its link
    }
    assert sources[0] == 0o644
    assert b"libc6 1.0: libc6_1.0+b~1_arm64.deb (Debian 12)" in sources[1]
    assert steps == [(0, 2, WHEEL), (1, 2, PACKAGE), (2, 2, "")]
    assert f"/gone/pool/main/{PACKAGE}" in world.asked  # the first mirror lacks it


def test_it_is_the_same_bytes_wherever_and_whenever_it_is_made(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = assemble("aarch64")
    world.move(tmp_path / "other", monkeypatch)
    umask = os.umask(0o077)
    try:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TZ", "Asia/Kathmandu")
            time.tzset()
            second = assemble("aarch64")
    finally:
        os.umask(umask)
        time.tzset()
    assert second != first
    assert second.name == first.name
    assert second.read_bytes() == first.read_bytes()
    # SOURCES.txt names the hash of the wheel, in which zlib's version shows; the rest is ours.
    assert hashlib.sha256(_without_sources(first)).hexdigest()[:8] == MADE_UP


def _without_sources(archive: Path) -> bytes:
    content = archive.read_bytes()
    with tarfile.open(archive) as files:
        sources = files.getmember("LICENSES/SOURCES.txt")
    ends = sources.offset_data + -(-sources.size // 512) * 512
    return content[: sources.offset] + content[ends:]


def test_once_made_it_needs_no_network_and_is_not_made_again(world: World) -> None:
    first = assemble("aarch64")
    written = first.stat().st_mtime_ns
    world.asked.clear()
    assert assemble("aarch64", offline=True) == first
    assert assemble("aarch64") == first
    assert first.stat().st_mtime_ns == written
    first.write_bytes(first.read_bytes()[:-1])  # a disk that ran full, an unlucky hand
    assert assemble("aarch64", offline=True) == first  # from the parts
    first.with_suffix(".sha256").write_bytes(b"\xff")
    assert assemble("aarch64", offline=True) == first
    assert world.asked == []


def test_another_runner_or_pin_makes_another_bundle(world: World) -> None:
    first = assemble("aarch64")
    world.runner.write_bytes(b"runner 2")
    second = assemble("aarch64")
    assert second.name != first.name
    world.pins["aarch64"]["loader"] = "ld2.so"
    assert assemble("aarch64").name not in (first.name, second.name)


@pytest.mark.parametrize("file", [WHEEL, PACKAGE])
def test_a_wrong_hash_is_refused_by_name_and_nothing_is_kept(world: World, file: str) -> None:
    wrong = world.wheel if file == WHEEL else world.pool
    wrong.write_bytes(wheel({"ai_edge_litert/libLiteRt.so": b"evil"}) if file == WHEEL else b"<html>Log in</html>")
    with pytest.raises(BundleError) as caught:
        assemble("aarch64")
    assert str(caught.value).startswith(f"{file} has not the pinned hash, and is not used: ")
    assert "\n" not in str(caught.value)
    good = [] if file == WHEEL else [world.pins["aarch64"]["wheel"][0]["sha256"]]
    assert world.kept() == good  # the good part alone


def test_a_damaged_part_in_the_cache_is_fetched_again(world: World) -> None:
    archive = assemble("aarch64")
    for path in [archive, *(world.cache / "parts").iterdir()]:
        path.write_bytes(b"damaged")
    with pytest.raises(BundleError, match="nothing may be fetched"):
        assemble("aarch64", offline=True)
    assert assemble("aarch64").read_bytes() != b"damaged"


def test_a_package_that_left_the_mirrors_is_said_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.pool.unlink()
    said = rf"^libc6_1.0.b~1_arm64\.deb is on no Debian mirror .*gone: 404; .*debian/: 404.* set {MIRROR_VARIABLE} to"
    with pytest.raises(BundleError, match=said):
        assemble("aarch64")
    own = world.served / "own" / "pool" / "main" / PACKAGE
    own.parent.mkdir(parents=True)
    own.write_bytes(world.package)
    world.asked.clear()
    monkeypatch.setenv(MIRROR_VARIABLE, f"{world.url}/own")
    assert assemble("aarch64").is_file()
    assert world.asked == [f"/own/pool/main/{PACKAGE}"]
    for nonsense in ("nonsense", "http://127.0.0.1:1/debian", "http://[", "http://\x00"[:7]):
        monkeypatch.setenv(MIRROR_VARIABLE, nonsense)
        (world.cache / "parts" / world.pins["aarch64"]["package"][0]["sha256"]).unlink(missing_ok=True)
        world.runner.write_bytes(nonsense.encode())
        with pytest.raises(BundleError, match="is on no Debian mirror"):
            assemble("aarch64")


def test_an_index_without_the_wheel_is_said_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.wheel.parent / "index.html").write_text("<html><body></body></html>")
    with pytest.raises(BundleError, match=rf"pip does not get {WHEEL} \(ERROR: No matching distribution") as caught:
        assemble("aarch64")
    assert "\n" not in str(caught.value)
    assert world.kept() == []


def test_offline_names_what_is_missing(world: World) -> None:
    with pytest.raises(BundleError, match=f"{WHEEL} is not in the cache, and nothing may be fetched"):
        assemble("aarch64", offline=True)
    assert world.asked == []


def test_a_part_that_lacks_a_file_is_an_error(world: World) -> None:
    world.pins["aarch64"]["package"][0]["take"] = {"lib/missing.so": "lib/missing.so"}
    with pytest.raises(BundleError, match=r"deb is not what bundle.toml says of it \('lib/missing.so'\)"):
        assemble("aarch64")
    assert not (world.cache / "bundles").exists()


def test_a_cache_that_cannot_be_written_is_an_error(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    world.move(tmp_path / "file" / "cache", monkeypatch)
    with pytest.raises(BundleError, match=r"the bundle cannot be written: .*: make room, or set EDGENET_CACHE_HOME"):
        assemble("aarch64")


def test_there_is_no_bundle_for_other_processors() -> None:
    with pytest.raises(BundleError, match="there is no bundle for riscv64: there is one for aarch64 and x86_64"):
        assemble("riscv64")
    with pytest.raises(BundleError, match="no bundle for mirrors"):
        assemble("mirrors")


@pytest.mark.parametrize("arch", ["aarch64", "x86_64"])
def test_the_pins_name_everything_that_is_started(arch: str) -> None:
    assert arch in architectures()
    parts = bundle._parts(arch)
    files = {target for part in parts for target in part.take.values()}
    assert {bundle_loader(arch), "lib/libc.so.6", "lib/libm.so.6", "lib/libstdc++.so.6", "lib/libgcc_s.so.1"} <= files
    assert set(bundle.LIBRARIES.values()) <= files
    assert any(name.startswith("LICENSES/") for name in files)
    assert len(files) == sum(len(part.take) for part in parts)  # no file is taken twice
    for part in parts:
        assert len(part.sha256) == 64
        assert bool(part.pool) != bool(part.platform)
        assert arch.replace("aarch64", "arm64").replace("x86_64", "amd64") in part.file or arch in part.file
    place = bundle_place("/a", arch)
    assert place.command[0] == f"/a/{bundle_loader(arch)}"
    assert set(bundle_versions(arch)) == set(place.libraries) == {"litert", "ort"}
    assert runner_path(arch).is_file()


def test_both_architectures_get_the_same_versions() -> None:
    assert bundle_versions("aarch64") == bundle_versions("x86_64")


def test_the_real_bundle_is_the_same_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        first = assemble("aarch64")
    except BundleError as exc:
        pytest.skip(f"the bundle for aarch64 cannot be assembled here: {exc}")
    monkeypatch.setenv("EDGENET_CACHE_HOME", str(tmp_path))
    (tmp_path / "parts").symlink_to(first.parent.parent / "parts")
    second = assemble("aarch64", offline=True)
    assert second.name == first.name
    assert second.read_bytes() == first.read_bytes()
    assert 20 << 20 < second.stat().st_size < 50 << 20


def test_without_pip_it_is_said_how_to_get_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BundleError, match="pip is missing, which gets the runtimes: python -m ensurepip"):
        assemble("aarch64")
