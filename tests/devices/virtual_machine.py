"""A whole arm64 machine, emulated: Debian's kernel, busybox, a dropbear for ssh, and Android's real adbd.

Unlike a root file system under qemu's user mode, its /proc and /sys are a kernel's own, and another ssh server than
OpenSSH's answers. Needs Debian's qemu-system-arm; what is in it is fetched once (29 MB), pinned. It reaches nobody, and
only this machine's loopback reaches it. What it answers is right, how fast it answers says nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from . import arm64
from .peers import comes
from .real_adbd import ADBD, LIBC, ZLIB, contents, package
from .sshd import free_port, new_key

PROCESSOR, CORES, MEMORY_MB = "cortex-a72", 2, 1024
BOOT_S = 90.0

_KERNEL = "6.1.0-50-cloud-arm64"
_LIBRARIES = "usr/lib/aarch64-linux-gnu"
# In the order they are loaded in; those of Debian 12 are not compressed.
_MODULES = {
    "virtio": "drivers/virtio",
    "virtio_ring": "drivers/virtio",
    "virtio_mmio": "drivers/virtio",
    "failover": "net/core",
    "net_failover": "drivers/net",
    "virtio_net": "drivers/net",
}

KERNEL = (
    package(
        f"l/linux-signed-arm64/linux-image-{_KERNEL}_6.1.176-1_arm64.deb",
        21130624,
        "9d41a53f5d687ae1a33cf546d0ed8be955f72e5f9e97b2b4e45e41dff3353b97",
        f"boot/vmlinuz-{_KERNEL}",
        *(f"lib/modules/{_KERNEL}/kernel/{folder}/{name}.ko" for name, folder in _MODULES.items()),
        folder="lib/modules",
    ),
)
DROPBEAR = (
    package(
        "d/dropbear/dropbear-bin_2022.83-1+deb12u3_arm64.deb",
        143724,
        "5ac2b0026ee47cbbb2378e339400a183196e9fe291d4794754b144b2dd8723e0",
        "usr/bin/dropbearkey",
        "usr/sbin/dropbear",
        folder="sbin",
    ),
    package(
        "libx/libxcrypt/libcrypt1_4.4.33-2_arm64.deb",
        90044,
        "eea0ad76ea5eb507127fea0c291622ea4ecdbb71c4b9a8ed9c76ae33fc1a0127",
        "lib/aarch64-linux-gnu/libcrypt.so.1",
    ),
    package(
        "g/gmp/libgmp10_6.2.1+dfsg1-1.1_arm64.deb",
        537920,
        "9906387c1dd806518c915bd8616d072c741061d7fa26b222e52763456060b31a",
        f"{_LIBRARIES}/libgmp.so.10",
    ),
    package(
        "libt/libtomcrypt/libtomcrypt1_1.18.2-6_arm64.deb",
        399860,
        "e9fb6df9fde6b428fd7ae0dbbd012a20b77db999adbf38e4b331357c0ca04ec3",
        f"{_LIBRARIES}/libtomcrypt.so.1",
    ),
    package(
        "libt/libtommath/libtommath1_1.2.0-6+deb12u1_arm64.deb",
        62828,
        "517fb3c1c0a0277fa55f332bdf7b5e6f9d9bd35edfbc95344c3eb2edc3cd365b",
        f"{_LIBRARIES}/libtommath.so.1",
    ),
    LIBC,
    ZLIB,
)

# The first process is busybox's init: it runs the first line, keeps the servers running, and reaps orphans.
_INITTAB = """\
::sysinit:/etc/rc
::respawn:/sbin/dropbear -F -E -s -r /etc/hostkey
::respawn:/bin/env ADBD_PORT=5555 /sbin/adbd
"""
_RC = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mkdir /dev/pts
mount -t devpts pts /dev/pts
mount -t proc proc /proc
mount -t sysfs sys /sys
for name in {" ".join(_MODULES)}; do insmod /lib/modules/$name.ko; done
for folder in /tmp /root /data/local/tmp; do mkdir -p $folder; mount -t tmpfs tmpfs $folder; done
chmod 700 /root
mkdir -m 700 /root/.ssh
cp /etc/authorized_keys /root/.ssh/
ifconfig lo up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
/sbin/dropbearkey -t ed25519 -f /etc/hostkey | sed -n 's/^ssh-/host key: &/p' >/dev/console
"""
_FILES = {
    "etc/inittab": _INITTAB,
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shells": "/bin/sh\n",
}

_QEMU = "qemu-system-aarch64"


class VirtualMachine:
    """A running machine. A context manager; skips where it cannot be had.

    folder: an empty one, for everything it needs.

    Attributes:
        address: of its ssh server. key: a private key that this accepts.
        serial: what adb calls it after `adb connect`.
        bin: a folder with an `ssh` that knows its host key and reads nothing of the user's, for PATH.
    """

    def __init__(self, folder: Path) -> None:
        for program, supplied_by in {_QEMU: "qemu-system-arm", "ssh-keygen": "openssh-client", "adb": "adb"}.items():
            if shutil.which(program) is None:
                pytest.skip(f"{program} is missing: apt-get install {supplied_by}")
        self._folder = folder
        self._cleanup = ExitStack()
        self.key = folder / "key"
        self.bin = folder / "bin"
        self._ports = {"ssh": (free_port(), 22), "adb": (free_port(), 5555)}
        self.address = f"root@127.0.0.1:{self._ports['ssh'][0]}"
        self.serial = f"127.0.0.1:{self._ports['adb'][0]}"

    def console(self) -> str:
        """What it has said."""
        return (self._folder / "console").read_text(errors="replace")

    def __enter__(self) -> VirtualMachine:
        files = dict(contents((*KERNEL, *DROPBEAR, *ADBD, arm64.BUSYBOX)))
        (self._folder / "kernel").write_bytes(files.pop(f"lib/modules/vmlinuz-{_KERNEL}"))
        files["bin/busybox"] = files.pop("busybox")
        new_key(self.key)
        files |= {name: text.encode() for name, text in _FILES.items()}
        files |= {"etc/rc": _RC.encode(), "etc/authorized_keys": self.key.with_suffix(".pub").read_bytes()}
        links = {"init": "bin/busybox", "bin/sh": "busybox"}
        (self._folder / "initrd").write_bytes(cpio(files, links))
        with self._cleanup as stack:
            said = stack.enter_context((self._folder / "console").open("wb"))
            machine = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
            stack.callback(machine.wait)
            stack.callback(machine.kill)
            started = comes(lambda: machine.poll() is not None or "adbd started" in self.console(), BOOT_S)
            assert started, f"it does not start in {BOOT_S:g} s: {self.console()[-2000:]}"
            assert machine.poll() is None, f"qemu ended: {self.console()[-2000:]}"
            self._trust()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _command(self) -> tuple[str, ...]:
        forwarded = ",".join(f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in self._ports.values())
        options = {
            "M": "virt",
            "cpu": PROCESSOR,
            "smp": CORES,
            "m": MEMORY_MB,
            "accel": "tcg,thread=multi",
            "display": "none",
            "monitor": "none",
            "serial": "stdio",
            "kernel": self._folder / "kernel",
            "initrd": self._folder / "initrd",
            "append": "console=ttyAMA0 quiet mitigations=off",
            "netdev": f"user,id=net,restrict=on,{forwarded}",
            "device": "virtio-net-device,netdev=net",
        }
        words = (str(word) for name, value in options.items() for word in (f"-{name}", value))
        # Whatever becomes of us, it does not outlive us.
        return ("setpriv", "--pdeathsig", "KILL", _QEMU, "-nodefaults", "-no-reboot", *words)

    def _trust(self) -> None:
        """Write the `ssh` that knows the host key it said it has."""
        said = self.console().partition("host key: ")[2].splitlines()[0]
        port = self._ports["ssh"][0]
        hosts = self._folder / "known_hosts"
        hosts.write_text(f"[127.0.0.1]:{port} {said}\n")
        options = ("-F", "/dev/null", f"-oUserKnownHostsFile={hosts}", "-oGlobalKnownHostsFile=/dev/null")
        self.bin.mkdir()
        wrapper = self.bin / "ssh"
        # PATH may begin with such a wrapper for another device.
        ssh = shutil.which("ssh", path=f"{os.defpath}{os.pathsep}{os.environ['PATH']}")
        command = (str(ssh), *options, "-oIdentityAgent=none")
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        wrapper.chmod(0o755)


def cpio(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    """Pack a root file system for a kernel: all is root's and executable, folders come by themselves.

    Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    names = (*files, *links, "dev/", "proc/", "sys/")
    folders = sorted({str(parent) for name in names for parent in Path(f"{name}x").parents if parent != Path()})
    members = [(0o40755, name, b"") for name in folders]
    members += [(0o100755, name, content) for name, content in files.items()]
    members += [(0o120777, name, target.encode()) for name, target in links.items()]
    packed = bytearray()
    for number, (mode, name, content) in enumerate([*members, (0, "TRAILER!!!", b"")], 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        packed += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        packed += bytes(-len(packed) % 4) + content
        packed += bytes(-len(packed) % 4)
    return bytes(packed)
