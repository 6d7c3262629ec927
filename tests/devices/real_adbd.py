"""Debian's own adbd, for the real adb binary to talk to: Android's code, its aarch64 build under qemu.

It needs Debian's packages adb, qemu-user-static and util-linux. It would take commands from every network of this
machine without a question, so it and the adb server live in a network of their own, which has nothing but loopback.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

import pytest

from devices.errors import BundleError
from devices.native.bundle_parts import Part, fetch, read_part

from . import arm64
from .peers import comes

# The last one keeps what Debian 13 replaces.
MIRRORS = (*arm64.MIRRORS, "http://snapshot.debian.org/archive/debian/20261120T000000Z")
LIBRARIES = "usr/lib/aarch64-linux-gnu"


def package(pool: str, size: int, sha256: str, *files: str, folder: str = "lib") -> Part:
    """Pin a Debian package: path on a mirror, and the files in it that are wanted, which go into one folder."""
    file = PurePosixPath(pool).name
    name, version, _ = file.split("_")
    take = {path: f"{folder}/{PurePosixPath(path).name}" for path in files}
    return Part(name, version, file, size, sha256, take, pool=f"pool/main/{pool}")


LIBC = package(
    "g/glibc/libc6_2.41-12+deb13u4_arm64.deb",
    2483572,
    "8784eda966b189c777a384dac5ce009e8fc9b52d006926c5a013e7fa8aa688cc",
    *(f"{LIBRARIES}/{name}" for name in ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libresolv.so.2")),
)
ZLIB = package(
    "z/zlib/zlib1g_1.3.dfsg+really1.3.1-1+b1_arm64.deb",
    85116,
    "209aa5cf671e97b9eb0410844fa6df4cae2e75b0c72e7802ab6c8ece13e6ddef",
    f"{LIBRARIES}/libz.so.1",
)
ADBD = (
    package(
        "a/android-platform-tools/adbd_34.0.5-12_arm64.deb",
        156100,
        "c8d2cb679fb6b0d508181310f7fb0e6ce4e713376ac123b9c47f1be58112ce6c",
        "usr/lib/android-sdk/platform-tools/adbd",
        folder="sbin",
    ),
    package(
        "a/android-platform-tools/android-libbase_34.0.5-12_arm64.deb",
        94316,
        "1b1460faa12cf04611cb58ff02808608fd2e3be642b72752a189c4ab84112a20",
        f"{LIBRARIES}/android/libbase.so.0",
    ),
    package(
        "a/android-platform-external-boringssl/android-libboringssl_14.0.0+r45-2_arm64.deb",
        567612,
        "6dd20f2d7ad3cdff7c80d8076feea6258c8e9f0a0a23ad85d447eeb3e7f11c36",
        *(f"{LIBRARIES}/android/{name}" for name in ("libcrypto.so.0", "libssl.so.0")),
    ),
    package(
        "a/android-platform-tools/android-libcutils_34.0.5-12_arm64.deb",
        39940,
        "683ec66783e0d54e91bee661af7f758528b2c85163d585ae936d1cfd5bf8d661",
        f"{LIBRARIES}/android/libcutils.so.0",
    ),
    package(
        "a/android-platform-tools/android-liblog_34.0.5-12_arm64.deb",
        39088,
        "7ce80b00c4592d0021ce2973d922f1c014fbbe33a289690732dfb556bfbbec96",
        f"{LIBRARIES}/android/liblog.so.0",
    ),
    package(
        "b/brotli/libbrotli1_1.1.0-2+b7_arm64.deb",
        307600,
        "10270398c4842e71c72b4081fa1761728b3225d6c8dce7c58d5baafe58a5e18f",
        *(f"{LIBRARIES}/libbrotli{part}.so.1" for part in ("common", "dec", "enc")),
    ),
    package(
        "libc/libcap2/libcap2_2.75-10+deb13u1+b3_arm64.deb",
        28568,
        "863aa5b9cdf6f80010b48982d4639126b09a89eeef2c0c5c7be226297c811581",
        f"{LIBRARIES}/libcap.so.2",
    ),
    package(
        "g/gcc-14/libgcc-s1_14.2.0-19_arm64.deb",
        54104,
        "1108bc87879833d6d9a145f22a4a15cddb34e065b4b5f4b97bee586adbac2851",
        f"{LIBRARIES}/libgcc_s.so.1",
    ),
    package(
        "l/lz4/liblz4-1_1.10.0-4_arm64.deb",
        59988,
        "f86fa7f8112d56b74f99c4a8baade57a9962d187d7c8e319428e171b2a34d223",
        f"{LIBRARIES}/liblz4.so.1",
    ),
    package(
        "p/protobuf/libprotobuf32t64_3.21.12-11+deb13u1_arm64.deb",
        858432,
        "51bf38fcca667be0deef732a903563ee6ffa9bfc04433310c2c49e4c92d06b09",
        f"{LIBRARIES}/libprotobuf.so.32",
    ),
    package(
        "g/gcc-14/libstdc++6_14.2.0-19_arm64.deb",
        637536,
        "6669b0c52a2e7c6af9adfdabce3ff6e286065cdfbc7b85280862b5f799daebee",
        f"{LIBRARIES}/libstdc++.so.6",
    ),
    package(
        "s/systemd/libsystemd0_257.13-1~deb13u1_arm64.deb",
        422500,
        "d2f63c408549c29eaefb6f4c948393edce99f45ee8e43c991391bef63fb7d54b",
        f"{LIBRARIES}/libsystemd.so.0",
    ),
    package(
        "x/xxhash/libxxhash0_0.8.3-2_arm64.deb",
        22276,
        "66665776740ced6c5ddcb48a89a92b056d0dcb13851e1ff573d2b99b766e5c6c",
        f"{LIBRARIES}/libxxhash.so.0",
    ),
    package(
        "libz/libzstd/libzstd1_1.5.7+dfsg-1_arm64.deb",
        266052,
        "924540bd59fdbfa77a0604360efdaca54411a43daf11c7e002a3c64791b67448",
        f"{LIBRARIES}/libzstd.so.1",
    ),
    LIBC,
    ZLIB,
)

# Holds the network open, with loopback up (SIOCSIFFLAGS, IFF_UP), until its standard input ends.
_NETWORK = """
import fcntl, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"lo", 1))
print("up", flush=True)
sys.stdin.read()
"""


def contents(parts: Sequence[Part]) -> Mapping[str, bytes]:
    """Fetch packages, and give the files wanted of them; or skip."""
    found: dict[str, bytes] = {}
    for part in parts:
        try:
            found.update(read_part(part, fetch(part, MIRRORS, offline=False)))
        except BundleError as exc:
            pytest.skip(f"Debian's {part.name} for arm64 cannot be had: {exc}")
    return found


class RealAdbd:
    """An adbd whose commands run here, as root of a user namespace. A context manager; skips where it cannot run.

    folder: an empty one, for everything it needs.

    Attributes:
        bin: a folder with an `adb` that works in its network, for PATH.
        serial: what adb calls it.
    """

    serial: str

    def __init__(self, folder: Path) -> None:
        if not shutil.which("adb"):
            pytest.skip("adb is not installed: apt install adb")
        if not shutil.which("unshare") or not shutil.which("nsenter"):
            pytest.skip("unshare and nsenter are missing: apt-get install util-linux")
        arm64.qemu()
        self._folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None
        self._cleanup = ExitStack()
        self.bin = folder / "bin"

    def start(self) -> None:
        """Start it, on the same port as before."""
        loader = (*arm64.emulated(self._folder), f"{self._folder}/lib/ld-linux-aarch64.so.1")
        command = (*self._inside, *loader, "--library-path", f"{self._folder}/lib", f"{self._folder}/sbin/adbd")
        log = self._folder / "log"
        with log.open("wb") as said:
            self._daemon = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "ADBD_PORT": self.serial.partition(":")[2]},
                start_new_session=True,
            )
        assert comes(lambda: b"adbd started" in log.read_bytes()), log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill it, as if its phone lost power; what its commands started is left."""
        if self._daemon:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def __enter__(self) -> RealAdbd:
        for name, content in contents(ADBD).items():
            path = self._folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o755)
        with self._cleanup as stack:
            self._inside = stack.enter_context(_own_network())
            self.serial = f"127.0.0.1:{stack.enter_context(_guarded_port())}"
            wrapper = self.bin / "adb"
            self.bin.mkdir()
            wrapper.write_text(f'#!/bin/sh\nexec {shlex.join((*self._inside, str(shutil.which("adb"))))} "$@"\n')
            wrapper.chmod(0o755)
            stack.callback(self.kill)
            stack.callback(subprocess.run, (str(wrapper), "kill-server"), capture_output=True, check=False)
            self.start()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()


@contextmanager
def _own_network() -> Iterator[tuple[str, ...]]:
    """A network with nothing in it but loopback; gives what goes before a command that is to run in it."""
    command = ("unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", _NETWORK)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as holder:
        assert holder.stdout
        if holder.stdout.readline() != b"up\n":
            why = holder.communicate()[1].decode(errors="replace").strip()
            pytest.skip(f"a user cannot have a network of his own here: {why}")
        try:
            yield ("nsenter", f"--target={holder.pid}", "--user", "--net", "--preserve-credentials", "--")
        finally:
            holder.communicate()


@contextmanager
def _guarded_port() -> Iterator[int]:
    """Choose a port, and keep adbd off vsock's of that number: that is the hypervisor's door, and in no namespace."""
    for port in range(20_000, 60_000):
        try:
            guard = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        except (AttributeError, OSError):  # there is no vsock here
            yield port
            return
        with guard:
            try:
                guard.bind((socket.VMADDR_CID_ANY, port))
            except OSError:  # taken
                continue
            yield port
            return
    raise AssertionError("no port of vsock is free")
