"""What a probe makes of real boards' files, through a real shell, and of shells that have little."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

import pytest

from devices.cpuinfo import Cluster, cpu_numbers, part_of_midr, read_cpuinfo
from devices.device import Android, DeviceInfo, DeviceState, Lines, probe, read_state, state
from devices.errors import DeviceUnfit
from devices.machine import cpu_model, isa_features, machine_state
from devices.shells.local import LocalShell

from .boards import pi4, pi5, pixel6, programs, write
from .peers import PEERS


@pytest.fixture
def shell(tmp_path: Path) -> LocalShell:
    return LocalShell(tmp_path / "ours")


def test_a_pi_4(shell: LocalShell, tmp_path: Path) -> None:
    assert probe(shell, "ssh", str(pi4(tmp_path / "pi", throttled="0x50005"))) == DeviceInfo(
        name="local",
        kind="ssh",
        board="Raspberry Pi 4 Model B Rev 1.4",
        os="Debian GNU/Linux 12 (bookworm)",
        kernel="Linux 6.12.25+rpt-rpi-v8",
        arch="aarch64",
        bits=64,
        clusters=(Cluster((0, 1, 2, 3), "cortex-a72", 1_800_000),),
        isa=(),
        ram_bytes=3884368 * 1024,
        libc="glibc 2.36",
        page_bytes=4096,
        android=None,
        state=DeviceState(0.08, "ondemand", "cpufreq-dt", 600_000, 48.686, 0x50005),
    )


def test_a_pi_5(shell: LocalShell, tmp_path: Path) -> None:
    info = probe(shell, "ssh", str(pi5(tmp_path / "pi")))
    assert (info.board, info.page_bytes, info.libc) == ("Raspberry Pi 5 Model B Rev 1.0", 16384, "glibc 2.41")
    assert info.clusters == (Cluster((0, 1, 2, 3), "cortex-a76", 2_400_000),)
    assert info.isa == ("asimddp", "fphp", "asimdhp")
    assert info.state == DeviceState(1.75, "ondemand", "cpufreq-dt", 1_500_000, 81.4, 0x80008)


def test_a_pixel(shell: LocalShell, tmp_path: Path) -> None:
    """Its hottest zone is the battery's charge, in units of its own; the processor's are called so."""
    info = probe(shell, "adb", str(pixel6(tmp_path / "phone")))
    assert info.android == Android(33, "13", "Pixel 6", "oriole", "GS101", "arm64-v8a", 42, True)
    assert (info.board, info.os, info.libc) == ("Google Pixel 6", "Android 13", "bionic")
    assert info.clusters == (
        Cluster((0, 1, 2, 3), "cortex-a55", 1_803_000),
        Cluster((4, 5), "cortex-a76", 2_253_000),
        Cluster((6, 7), "cortex-x1", 2_802_000),
    )
    assert info.cpu_parts == ("cortex-a55", "cortex-a76", "cortex-x1")
    assert info.state == DeviceState(9.31, "sched_pixel", "exynos", 1_401_000, 51.0, None)


@pytest.mark.parametrize("peer", PEERS)
def test_over_every_kind_of_shell(peer: str, shell: LocalShell, tmp_path: Path) -> None:
    root = str(pixel6(tmp_path / "phone"))
    (tmp_path / "peer").mkdir()
    with PEERS[peer](tmp_path / "peer") as other:
        info = probe(other, peer, root)
    assert info == dataclasses.replace(probe(shell, "local", root), name=other.name, kind=peer)


def test_the_state_alone_is_the_probe_s(shell: LocalShell, tmp_path: Path) -> None:
    for board in (pi4, pi5, pixel6):
        root = str(board(tmp_path / board.__name__))
        assert state(shell, root) == probe(shell, "", root).state


def test_this_machine_reads_the_same_files_by_the_same_rules(shell: LocalShell, tmp_path: Path) -> None:
    root = pi5(tmp_path / "pi")
    info = probe(shell, "ssh", str(root))
    assert cpu_model(root) == info.board
    assert isa_features(root) == info.isa
    assert machine_state(root) == dataclasses.replace(info.state, throttled=None)  # no program of root's is started
    assert machine_state(pixel6(tmp_path / "phone")).temperature_c == 51.0


def test_this_machine(shell: LocalShell) -> None:
    info = probe(shell, "local")
    assert info.arch == os.uname().machine
    assert info.bits == 64
    assert info.page_bytes == os.sysconf("SC_PAGE_SIZE")
    assert sum(len(cluster.cpus) for cluster in info.clusters) == os.cpu_count()
    assert info.ram_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_device_without_any_of_the_files(shell: LocalShell, tmp_path: Path) -> None:
    root = tmp_path / "bare"
    programs(root, uname="#!/bin/sh\necho Linux 4.4.0 armv7l\n", getconf="#!/bin/sh\nexit 127\n")
    info = probe(shell, "ssh", str(root))
    nothing = DeviceState(None, None, None, None, None, None)
    assert info == DeviceInfo(
        "local", "ssh", "armv7l", "Linux", "Linux 4.4.0", "armv7l", None, (), (), None, "", None, None, nothing
    )


def test_without_getconf_the_kernel_tells_how_wide_programs_are(shell: LocalShell, tmp_path: Path) -> None:
    root = pi4(tmp_path / "pi")
    programs(root, getconf="#!/bin/sh\nexit 127\n")
    smaps = "Size:                132 kB\nKernelPageSize:       16 kB\n"
    write(root, {"proc/self/maps": "7ffc1a2b3000-7ffc1a2d4000 rw-p 0 00:00 0 [stack]\n", "proc/self/smaps": smaps})
    info = probe(shell, "ssh", str(root))
    assert (info.bits, info.page_bytes, info.libc) == (64, 16384, "")
    write(root, {"proc/self/maps": "fff1a000-fff3b000 rw-p 00000000 00:00 0          [stack]\n"})
    assert probe(shell, "ssh", str(root)).bits == 32


def test_programs_of_32_bits_on_a_kernel_of_64(shell: LocalShell, tmp_path: Path) -> None:
    info = probe(shell, "ssh", str(pi4(tmp_path / "pi", bits=32)))
    assert (info.arch, info.bits) == ("aarch64", 32)


def test_a_processor_that_is_off_is_left_out(shell: LocalShell, tmp_path: Path) -> None:
    root = pixel6(tmp_path / "phone")
    write(root, {"sys/devices/system/cpu/online": "0-2,7\n"})
    assert [cluster.cpus for cluster in probe(shell, "adb", str(root)).clusters] == [(0, 1, 2), (7,)]


def test_registers_name_processors_where_cpuinfo_does_not(shell: LocalShell, tmp_path: Path) -> None:
    """Under emulation, /proc/cpuinfo is the host's."""
    root = pi4(tmp_path / "pi")
    for cpu in range(4):
        midr = "0x00000000414fd0b1\n"
        write(root, {f"sys/devices/system/cpu/cpu{cpu}/regs/identification/midr_el1": midr})
    assert probe(shell, "ssh", str(root)).cpu_parts == ("cortex-a76",)


def test_a_folder_with_a_space_and_a_dollar(shell: LocalShell, tmp_path: Path) -> None:
    root = pi4(tmp_path / "a $(touch gone) pi")
    assert probe(shell, "ssh", str(root)).state.temperature_c == 48.686


def test_a_device_that_is_no_linux(shell: LocalShell, tmp_path: Path) -> None:
    programs(tmp_path / "odd", uname="#!/bin/sh\nexit 1\n")
    with pytest.raises(DeviceUnfit, match="is this a Linux or Android device"):
        probe(shell, "ssh", str(tmp_path / "odd"))


def test_a_state_is_cheap(shell: LocalShell, tmp_path: Path) -> None:
    """100 ms are allowed on a device; a phone has a hundred thermal zones, most of them slow and of no use."""
    root = pixel6(tmp_path / "phone")
    for zone in range(6, 100):
        write(root, {f"sys/class/thermal/thermal_zone{zone}/type": "pmic\n"})
        os.mkfifo(root / f"sys/class/thermal/thermal_zone{zone}/temp")  # to read it would never end
    start = time.perf_counter()
    assert state(shell, str(root)).temperature_c == 51.0
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", ["busybox", "toybox"])
def test_small_shells(name: str, shell: LocalShell, tmp_path: Path) -> None:
    """Everything but sh itself is the small one's, and nothing else is on PATH."""
    box = shutil.which(name)
    if box is None:
        pytest.skip(f"{name} is not installed: apt install {name}")
    root = pi4(tmp_path / "pi")
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ["sh", "grep", "sed", "cat", "tr", "head", "uname", "printf"]:
        source = shutil.which("sh") if tool == "sh" and name == "toybox" else box  # its sh is not finished
        (tools / tool).symlink_to(str(source))
    for tool in root.glob("usr/bin/*"):
        tool.write_text(tool.read_text().replace("#!/bin/sh", f"#!{shutil.which('sh')}"))

    class Small(LocalShell):
        def run(self, command, timeout_s=30.0, stdin=b""):  # type: ignore[no-untyped-def]
            return super().run(("env", "-i", f"PATH={tools}", *command), timeout_s, stdin)

    info = probe(Small(tmp_path / "ours"), "ssh", str(root))
    assert info.state == probe(shell, "ssh", str(root)).state
    assert info.clusters == (Cluster((0, 1, 2, 3), "cortex-a72", 1_800_000),)
    assert (info.board, info.ram_bytes) == ("Raspberry Pi 4 Model B Rev 1.4", 3884368 * 1024)


ZONE = "/sys/class/thermal/thermal_zone"


@pytest.mark.parametrize(
    ("lines", "degrees"),
    [
        ({f"{ZONE}0/temp": ["48000"], f"{ZONE}1/temp": ["51500"]}, 51.5),
        ({f"{ZONE}0/type": ["mtktscpu"], f"{ZONE}0/temp": ["43"], f"{ZONE}1/temp": ["90000"]}, 43.0),
        ({f"{ZONE}0/temp": ["-274000"], f"{ZONE}1/temp": ["0"], f"{ZONE}2/temp": ["x"]}, None),
        ({f"{ZONE}0/temp": ["1000000000000000000000"]}, None),
        ({"thermalservice": ["Temperature{mValue=38.5, mType=0, mName=CPU0, mStatus=0}"]}, 38.5),
        (
            {
                "thermalservice": [
                    "Cached temperatures:",
                    "Temperature{mValue=60.0, mType=0, mName=CPU0, mStatus=0}",
                    "Current temperatures from HAL:",
                    "Temperature{mValue=41.0, mType=0, mName=CPU0, mStatus=0}",
                    "Temperature{mValue=55.0, mType=3, mName=skin, mStatus=0}",
                ]
            },
            41.0,
        ),
    ],
)
def test_temperatures(lines: Lines, degrees: float | None) -> None:
    assert read_state(lines).temperature_c == degrees


@pytest.mark.parametrize(
    ("said", "bits"),
    [("throttled=0x0", 0), ("throttled=0x50005", 0x50005), ("VCHI initialization failed", None), ("throttled=5", None)],
)
def test_throttle_bits(said: str, bits: int | None) -> None:
    assert read_state({"vcgencmd": [said]}).throttled == bits


def test_nonsense_in_files_is_not_believed() -> None:
    folder = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
    assert read_state({folder: ["<unsupported>"], "/proc/loadavg": ["nan inf"]}) == DeviceState(
        None, None, None, None, None, None
    )


def test_cpuinfo_of_32_bit_kernels_says_the_part_once() -> None:
    lines = [
        "processor\t: 0",
        "BogoMIPS\t: 1.0",
        "",
        "processor\t: 1",
        "",
        "Features\t: half neon",
        "CPU part\t: 0xc07",
    ]
    found = read_cpuinfo([*lines, "CPU implementer\t: 0x41", "Hardware\t: BCM2709"])
    assert found.parts == {0: "cortex-a7", 1: "cortex-a7"}
    assert found.model == "BCM2709"


def test_only_what_all_processors_can_do_counts() -> None:
    little, big = ["processor : 0", "Features : asimd fphp"], ["processor : 1", "Features : asimd fphp asimddp"]
    assert read_cpuinfo([*little, *big]).isa == ("fphp",)


def test_an_unknown_part_keeps_its_number() -> None:
    assert part_of_midr("0x00000000410fdff1") == "arm 0x41/0xdff"
    assert part_of_midr("none") == ""


def test_lists_of_processors() -> None:
    assert cpu_numbers("0-3,6") == (0, 1, 2, 3, 6)
    assert cpu_numbers("") == cpu_numbers("all") == ()
