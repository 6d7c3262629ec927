"""Boards as a root folder of files, written from public dumps of the real ones; programs there answer as theirs do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_A72 = "fp asimd evtstrm crc32 cpuid"
_V82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
_UNAME = '#!/bin/sh\n[ "$1" = -srm ] && echo "{}"\n'
_GETCONF = "#!/bin/sh\ncase $1 in LONG_BIT) echo {} ;; PAGESIZE) echo {} ;; GNU_LIBC_VERSION) {} ;; *) exit 1 ;; esac\n"


def pi4(root: Path, throttled: str = "0x0", bits: int = 64) -> Path:
    """Write a Raspberry Pi 4B: Raspberry Pi OS 12."""
    cpus = "".join(_processor(number, _A72, 0xD08, "\t: 108.00") for number in range(4))
    write(
        root,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/cpuinfo": cpus + "Revision\t: c03114\nSerial\t\t: 10\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
            "proc/meminfo": "MemTotal:        3884368 kB\nMemFree:         2000000 kB\n",
            "proc/loadavg": "0.08 0.03 0.01 1/160 1204\n",
            "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48686\n",
            **_cpufreq(range(4), 1_800_000, 600_000, "ondemand", "cpufreq-dt"),
            "sys/devices/system/cpu/online": "0-3\n",
        },
    )
    programs(
        root,
        uname=_UNAME.format("Linux 6.12.25+rpt-rpi-v8 aarch64"),
        getconf=_GETCONF.format(bits, 4096, "echo glibc 2.36"),
        vcgencmd=f'#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled={throttled}\n',
    )
    return root


def pi5(root: Path) -> Path:
    """Write a Raspberry Pi 5: Raspberry Pi OS 13, pages of 16 KiB."""
    cpus = "".join(_processor(number, _V82, 0xD0B, "\t: 108.00") for number in range(4))
    write(
        root,
        {
            "sys/firmware/devicetree/base/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/cpuinfo": cpus + "Revision\t: d04170\nSerial\t\t: 10\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
            "proc/meminfo": "MemTotal:        8255488 kB\n",
            "proc/loadavg": "1.75 0.90 0.40 2/210 3301\n",
            "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "81400\n",
            **_cpufreq(range(4), 2_400_000, 1_500_000, "ondemand", "cpufreq-dt"),
            "sys/devices/system/cpu/online": "0-3\n",
        },
    )
    programs(
        root,
        uname=_UNAME.format("Linux 6.12.75+rpt-rpi-2712 aarch64"),
        getconf=_GETCONF.format(64, 16384, "echo glibc 2.41"),
        vcgencmd="#!/bin/sh\necho throttled=0x80008\n",
    )
    return root


def pixel6(root: Path) -> Path:
    """Write a Google Pixel 6: Android 13, three kinds of processor, a battery that reads as a thermal zone."""
    parts = [0xD05] * 4 + [0xD0B] * 2 + [0xD44] * 2
    zones = {"BIG": "51000", "MID": "47000", "LITTLE": "46000", "G3D": "40000", "battery": "301", "soc": "100000"}
    files = {
        "proc/cpuinfo": "".join(_processor(number, _V82, part, "\t: 49.15") for number, part in enumerate(parts)),
        "proc/meminfo": "MemTotal:        7816668 kB\n",
        "proc/loadavg": "9.31 9.12 9.01 2/3012 14901\n",
        **_cpufreq(range(4), 1_803_000, 1_401_000, "sched_pixel", "exynos"),
        **_cpufreq(range(4, 6), 2_253_000, 400_000, "sched_pixel", "exynos"),
        **_cpufreq(range(6, 8), 2_802_000, 500_000, "sched_pixel", "exynos"),
        "sys/devices/system/cpu/online": "0-7\n",
    }
    for number, (kind, value) in enumerate(zones.items()):
        files[f"sys/class/thermal/thermal_zone{number}/type"] = f"{kind}\n"
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = f"{value}\n"
    write(root, files)
    programs(
        root,
        uname=_UNAME.format("Linux 5.10.157-android13-4-00003-gdaa9b7bc9b7c-ab10052105 aarch64"),
        getconf=_GETCONF.format(64, 4096, "exit 1"),
        getprop=(
            "#!/bin/sh\ncat <<'END'\n[ro.board.platform]: [gs101]\n[ro.build.version.release]: [13]\n"
            "[ro.build.version.sdk]: [33]\n[ro.product.board]: [oriole]\n[ro.product.cpu.abi]: [arm64-v8a]\n"
            "[ro.product.manufacturer]: [Google]\n[ro.product.model]: [Pixel 6]\n[ro.soc.manufacturer]: [Google]\n"
            "[ro.soc.model]: [GS101]\nEND\n"
        ),
        dumpsys=(
            "#!/bin/sh\ncase $1 in\n"
            'battery) printf "Current Battery Service state:\\n  level: 42\\n  scale: 100\\n" ;;\n'
            'power) printf "Power Manager State:\\n  mWakefulness=Awake\\n  mWakefulnessChanging=false\\n" ;;\nesac\n'
        ),
    )
    return root


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write files below a root folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


def programs(root: Path, **scripts: str) -> None:
    """Write programs into a root folder's usr/bin."""
    for name, text in scripts.items():
        write(root, {f"usr/bin/{name}": text})
        (root / "usr/bin" / name).chmod(0o755)


def _processor(number: int, features: str, part: int, bogomips: str) -> str:
    return (
        f"processor\t: {number}\nBogoMIPS{bogomips}\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part:#05x}\nCPU revision\t: 3\n\n"
    )


def _cpufreq(cpus: range, most: int, now: int, governor: str, driver: str) -> dict[str, str]:
    values = {
        "cpuinfo_max_freq": most,
        "scaling_cur_freq": now,
        "scaling_governor": governor,
        "scaling_driver": driver,
    }
    folder = "sys/devices/system/cpu/cpu{}/cpufreq/{}"
    return {folder.format(cpu, name): f"{value}\n" for cpu in cpus for name, value in values.items()}
