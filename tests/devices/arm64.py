"""An emulated 64-bit ARM device: a Raspberry Pi 4's files, busybox for a userland, qemu for its processor.

Needs Debian's package qemu-user-static. With it alone the runner runs against the Pi's files (`emulated`); a shell
inside the device (`Arm64Shell`) needs a kernel that lets a user have his own binary formats, too (Linux 6.7).
What it answers is right, how fast it answers says nothing.
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from devices.child import exchange
from devices.errors import BundleError, CommandTimeout, DeviceLost
from devices.native.bundle_parts import Part, fetch, read_part
from devices.shells.shell import DEFAULT_TIMEOUT_S, Result, pull_file, push_archive, result, script

# qemu 7.2's default, a processor with every extension, computes int8 wrongly: 994 of 1000 outputs differ.
PROCESSOR = "cortex-a72"
CORES = 4

BUSYBOX = Part(
    name="busybox-static",
    version="1:1.35.0-4+deb12u1+b1",
    file="busybox-static_1.35.0-4+deb12u1+b1_arm64.deb",
    size=822236,
    sha256="732c9135564fc71337e0e05fb4da4d11e6c28c1834bce3e405e575afef2a52f5",
    take={"bin/busybox": "busybox"},
    pool="pool/main/b/busybox/busybox-static_1.35.0-4+deb12u1+b1_arm64.deb",
)
MIRRORS = ("http://deb.debian.org/debian", "http://archive.debian.org/debian")

# $1: the emulator, $2: the root, $3: a script for the shell inside. An aarch64 ELF is recognised by its first 20 bytes;
# P: it is told the name it is called by, F: it is opened now, as it does not exist inside.
_ENTER = r"""
set -e
formats=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc binfmt_misc $formats
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":edgenet-aarch64:M::$magic:$mask:$1:PF" >$formats/register
mount --rbind /proc "$2/proc"
mount --rbind /dev "$2/dev"
mount --bind "$2/etc/cpuinfo" "$2/proc/cpuinfo"
exec chroot "$2" /bin/sh -c "$3"
"""
OWN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _ENTER, "sh")


def qemu() -> str:
    """Find the emulator, or skip."""
    found = shutil.which("qemu-aarch64-static")
    if found is None:
        pytest.skip("qemu-aarch64-static is missing: apt-get install qemu-user-static")
    return found


def emulated(root: Path) -> tuple[str, ...]:
    """What goes before a program for aarch64, so that it runs here and sees the files of `root` first."""
    return (qemu(), "-cpu", PROCESSOR, "-L", str(root))


def raspberry_pi(root: Path) -> Path:
    """Write what a Raspberry Pi 4B says of itself below /sys and /proc; a test may change it as it goes."""
    cpus = root / "sys/devices/system/cpu"
    _write(root / "proc/cpuinfo", _cpuinfo())
    _write(root / "sys/firmware/devicetree/base/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    _write(root / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    _write(root / "sys/class/thermal/thermal_zone0/temp", "48686\n")
    for name in ("online", "possible", "present"):
        _write(cpus / name, f"0-{CORES - 1}\n")
    for cpu in range(CORES):
        _write(cpus / f"cpu{cpu}/regs/identification/midr_el1", "0x00000000410fd083\n")
        _write(cpus / f"cpu{cpu}/topology/physical_package_id", "0\n")
        policy = {"scaling_governor": "ondemand", "scaling_driver": "cpufreq-dt", "scaling_cur_freq": "1800000"}
        for name, text in {**policy, "cpuinfo_max_freq": "1800000", "cpuinfo_min_freq": "600000"}.items():
            _write(cpus / f"cpu{cpu}/cpufreq/{name}", text + "\n")
    return root


def root_filesystem(root: Path) -> Path:
    """Write a Raspberry Pi's files, and a userland of busybox and a vcgencmd that reads /run/throttled; or skip."""
    raspberry_pi(root)
    for folder in ("bin", "dev", "etc", "root", "run", "tmp", "usr/bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "proc/cpuinfo").rename(root / "etc/cpuinfo")
    busybox = root / "bin/busybox"
    try:
        busybox.write_bytes(read_part(BUSYBOX, fetch(BUSYBOX, MIRRORS, offline=False))["busybox"])
    except BundleError as exc:
        pytest.skip(f"busybox-static for arm64 cannot be had: {exc}")
    busybox.chmod(0o755)
    applets = subprocess.run([qemu(), str(busybox), "--list"], capture_output=True, text=True, check=True).stdout
    for applet in applets.split():
        with suppress(FileExistsError):
            (root / "bin" / applet).symlink_to("busybox")
    _write(root / "run/throttled", "0x0\n")
    _write(root / "usr/bin/vcgencmd", '#!/bin/sh\n[ "$1" = get_throttled ] && echo "throttled=$(cat /run/throttled)"\n')
    (root / "usr/bin/vcgencmd").chmod(0o755)
    return root


class Arm64Shell:
    """A shell inside the emulated device; a `Shell`."""

    name = "emulated-pi"
    root = "/root/edgenet"
    connections = 1

    def __init__(self, filesystem: Path) -> None:
        _require_own_formats()
        self._filesystem = filesystem
        (filesystem / self.root.lstrip("/") / "run").mkdir(parents=True, exist_ok=True)

    def run(self, command: Sequence[str], timeout_s: float = DEFAULT_TIMEOUT_S, stdin: bytes = b"") -> Result:
        return self._send(command, timeout_s, stdin)

    def push(self, files: Mapping[str, Path], folder: str, timeout_s: float = 600.0) -> int:
        incoming = f"{self.root}/incoming/{secrets.token_hex(4)}"
        return push_archive(self._send, self.name, incoming, files, folder, timeout_s)

    def pull(self, path: str, timeout_s: float = 60.0) -> bytes:
        return pull_file(self._send, self.name, path, timeout_s)

    def close(self) -> None:
        pass

    def __enter__(self) -> Arm64Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, command: Sequence[str], timeout_s: float, stdin: bytes | IO[bytes]) -> Result:
        sent = script(command, self.root)
        try:
            stdout, stderr = self._enter(sent.text, timeout_s, stdin)
        except subprocess.TimeoutExpired:
            self._enter(sent.killer, 10.0, b"")
            raise CommandTimeout(f"{command[0]!r} gave no answer in {timeout_s:g} s") from None
        ended = result(sent, stdout, stderr)
        if ended is None:
            raise DeviceLost(f"the emulated shell died: {stderr.decode(errors='replace')}")
        return ended

    def _enter(self, text: str, timeout_s: float, stdin: bytes | IO[bytes]) -> tuple[bytes, bytes]:
        env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "QEMU_CPU": PROCESSOR}
        return exchange((*OWN_NAMESPACE, qemu(), str(self._filesystem), text), timeout_s, stdin, env=env)


@functools.cache
def _require_own_formats() -> None:
    probe = (*OWN_NAMESPACE[:-2], "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc")
    if os.name != "posix" or shutil.which("unshare") is None:
        pytest.skip("unshare is missing: apt-get install util-linux")
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a user cannot register binary formats of his own here (Linux 6.7 can): {done.stderr.strip()}")


def _cpuinfo() -> str:
    core = "BogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    core += "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
    cores = "".join(f"processor\t: {cpu}\n{core}" for cpu in range(CORES))
    return f"{cores}Hardware\t: BCM2835\nRevision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
