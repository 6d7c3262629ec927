"""What a device is, and the state that timings depend on: asked in one round trip each, POSIX sh and grep alone.

The script prints a line `label:text` for each line of each file that it finds, the label being the file's path; files
that a device lacks, or does not let us read, are left out. Whatever else a login prints is no label and is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devices.cpuinfo import Cluster, clusters, cpu_numbers, part_of_midr, read_cpuinfo
from devices.errors import DeviceUnfit
from devices.shells.shell import Shell

CPUFREQ = "/sys/devices/system/cpu/cpu0/cpufreq"
THERMAL = "/sys/class/thermal/thermal_zone*"
BOARD_FILES = ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model")
STATE_FILES = ("/proc/loadavg", *(f"{CPUFREQ}/scaling_{name}" for name in ("governor", "driver", "cur_freq")))

THROTTLED = {
    1: "under-voltage",
    2: "its clock is capped",
    4: "it throttles",
    8: "its soft temperature limit is reached",
}
"""Bits of a Raspberry Pi's get_throttled that hold now; 16 bits higher: that held since it was started.

Source: raspberrypi.com, vcgencmd get_throttled.
"""

OWN_GOVERNORS = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
"""Clock drivers that mean another thing by the governor powersave, and raise the clock; elsewhere it holds the lowest.

Source: kernel.org, intel_pstate and amd-pstate: in passive mode they are called intel_cpufreq and amd-pstate.
"""

Lines = Mapping[str, Sequence[str]]
"""Path of a file, or name of a question -> the lines it answered."""

CPU_ZONE = "cpu|x86_pkg|coretemp|soc[-_]thermal|^big|^mid|^little|cluster|package-thermal"
"""Types of thermal zone that are the processor's, whatever the case.

The others are a phone's battery, skin and radios, some of them in units of their own and slow to read.
"""

_STATE_SCRIPT = rf"""
exec 2>/dev/null
R=${{1%/}}
[ -z "$R" ] || PATH=$R/usr/bin:$PATH
set --
IFS='
'
for f in $(grep -liE '{CPU_ZONE}' "$R"{THERMAL}/type); do set -- "$@" "${{f%type}}temp"; done
[ $# -gt 0 ] || set -- "$R"{THERMAL}/temp
t=$(grep -s . /dev/null "$@")
[ -n "$t" ] || t=$(dumpsys thermalservice | grep -E 'temperatures|mType=' | sed 's/^/thermalservice:/')
printf '%s\n' "$t"
grep -s . /dev/null {" ".join(f'"$R"{path}' for path in STATE_FILES)}
v=$(command -v vcgencmd || echo /opt/vc/bin/vcgencmd)
printf 'vcgencmd:%s\n' "$("$v" get_throttled)"
"""

_KEYS = "processor|model name|flags|Features|CPU implementer|CPU part|Model|Hardware"

_INFO_SCRIPT = rf"""
printf 'uname:%s\n' "$(uname -srm)"
for name in LONG_BIT PAGESIZE GNU_LIBC_VERSION; do printf '%s:%s\n' $name "$(getconf $name)"; done
for f in {" ".join(f'"$R"{path}' for path in BOARD_FILES)}; do
  [ ! -r "$f" ] || printf 'board:%s\n' "$(tr -d '\000' <"$f")"
done
grep -sE '^({_KEYS})[[:space:]]*:' /dev/null "$R"/proc/cpuinfo
grep -s '^MemTotal:' /dev/null "$R"/proc/meminfo
grep -s '^PRETTY_NAME=' /dev/null "$R"/etc/os-release
grep -s '\[stack\]' /dev/null "$R"/proc/self/maps
grep -s '^KernelPageSize:' /dev/null "$R"/proc/self/smaps | head -n 1
C=$R/sys/devices/system/cpu
grep -s . /dev/null "$C"/online "$C"/cpu[0-9]*/cpufreq/cpuinfo_max_freq "$C"/cpu[0-9]*/regs/identification/midr_el1
if command -v getprop >/dev/null; then
  getprop | grep -E '^\[ro\.(build\.version\.(sdk|release)|product\.(manufacturer|model|board|cpu\.abi)|soc\.model)\]'
  dumpsys battery | grep -E '^ *level:' | sed 's/^/battery:/'
  dumpsys power | grep -E '^ *mWakefulness=' | sed 's/^/power:/'
fi
"""

_END = "printf 'end:\\n'\n"


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What moves timings, at one moment; None where the device does not tell."""

    load_1m: float | None  # runnable processes, mean over a minute
    governor: str | None
    clock_driver: str | None  # "intel_pstate" raises the clock by itself, whatever the governor is called
    frequency_khz: int | None  # of the first processor
    temperature_c: float | None  # of the processor's hottest sensor; of any, where none is called the processor's
    throttled: int | None = None  # a Raspberry Pi's bits: 0-3 now, 16-19 since boot


@dataclass(frozen=True, slots=True)
class Android:
    """What a phone says of itself; None or "" where it does not tell."""

    api_level: int
    release: str  # "14"
    model: str  # "Pixel 7"
    board: str  # "panther"
    soc: str  # "Tensor G2"
    abi: str  # "arm64-v8a"
    battery_percent: int | None
    screen_on: bool | None


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a device is.

    Attributes:
        name: as the user calls it.
        kind: "local", "ssh" or "adb".
        board: "Raspberry Pi 5 Model B Rev 1.0", "Google Pixel 7"; where neither is known, the processor's name.
        os: "Debian GNU/Linux 12 (bookworm)", "Android 14".
        kernel: "Linux 6.12.25+rpt-rpi-2712".
        arch: of the kernel: "aarch64", "x86_64", "armv7l".
        bits: of the programs on it, 32 or 64; None where it does not tell.
        clusters: processors that are on, those alike together.
        isa: those of cpuinfo.ISA_FEATURES that all processors have.
        libc: "glibc 2.36", "bionic", "" where it does not tell.
        page_bytes: size of a memory page; 16384 on a Raspberry Pi 5.
    """

    name: str
    kind: str
    board: str
    os: str
    kernel: str
    arch: str
    bits: int | None
    clusters: tuple[Cluster, ...]
    isa: tuple[str, ...]
    ram_bytes: int | None
    libc: str
    page_bytes: int | None
    android: Android | None
    state: DeviceState

    @property
    def cpu_parts(self) -> tuple[str, ...]:
        """Kinds of processor, each once: ("cortex-a55", "cortex-x1")."""
        return tuple(dict.fromkeys(cluster.part for cluster in self.clusters))


def probe(shell: Shell, kind: str = "", root: str = "/") -> DeviceInfo:
    """Ask a device what it is, in one round trip.

    kind: how it is reached. root: where its files lie. Raises ShellError; DeviceUnfit where the answer is none.
    """
    return read_info(_ask(shell, _STATE_SCRIPT + _INFO_SCRIPT, root), shell.name, kind)


def state(shell: Shell, root: str = "/") -> DeviceState:
    """Ask a device for its state, in one round trip; raises as probe does."""
    return read_state(_ask(shell, _STATE_SCRIPT, root))


def read_state(lines: Lines) -> DeviceState:
    """Read a state out of what the files say."""
    frequency = _first(lines, f"{CPUFREQ}/scaling_cur_freq")
    load = _first(lines, "/proc/loadavg").split(" ")[0]
    throttled = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})", _first(lines, "vcgencmd"))
    return DeviceState(
        load_1m=float(load) if re.fullmatch(r"\d+\.\d+", load) else None,
        governor=_first(lines, f"{CPUFREQ}/scaling_governor") or None,
        clock_driver=_first(lines, f"{CPUFREQ}/scaling_driver") or None,
        frequency_khz=int(frequency) if frequency.isdecimal() else None,
        temperature_c=_temperature(lines),
        throttled=int(throttled[1], 16) if throttled else None,
    )


def read_info(lines: Lines, name: str, kind: str) -> DeviceInfo:
    """Read what a device is out of what its files say; raises DeviceUnfit where it tells not even its kernel."""
    uname = re.fullmatch(r"(\S+ \S+) (\S+)", _first(lines, "uname"))
    if uname is None:
        raise DeviceUnfit(f"{name}: uname answers {_first(lines, 'uname')!r}: is this a Linux or Android device?")
    processors = read_cpuinfo(lines.get("/proc/cpuinfo", ()))
    android = _android(lines)
    phone = f"{_property(lines, 'product.manufacturer')} {android.model}".strip() if android else ""
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _first(lines, "/proc/meminfo"))
    pretty = _first(lines, "/etc/os-release").removeprefix("PRETTY_NAME=").strip("\"'")
    return DeviceInfo(
        name=name,
        kind=kind,
        board=phone or _first(lines, "board") or processors.model or uname[2],
        os=f"Android {android.release}" if android else pretty or "Linux",
        kernel=uname[1],
        arch={"arm64": "aarch64", "amd64": "x86_64"}.get(uname[2], uname[2]),
        bits=_bits(lines),
        clusters=_clusters(lines, processors.parts),
        isa=processors.isa,
        ram_bytes=int(memory[1]) * 1024 if memory else None,
        libc="bionic" if android else _first(lines, "GNU_LIBC_VERSION"),
        page_bytes=_page_bytes(lines),
        android=android,
        state=read_state(lines),
    )


def _ask(shell: Shell, script: str, root: str) -> Lines:
    answer = shell.run(("sh", "-c", script + _END, "sh", root))
    lines: dict[str, list[str]] = {}
    for line in answer.stdout.decode(errors="replace").splitlines():
        label, _, text = line.removeprefix(root.rstrip("/")).partition(":")
        lines.setdefault(label, []).append(text.strip())
    if "end" not in lines:
        said = answer.stderr.decode(errors="replace").strip().splitlines()
        why = f"exit status {answer.status}{': ' + said[-1] if said else ''}"
        raise DeviceUnfit(f"{shell.name}: its shell does not run our questions ({why}): is it a POSIX sh?")
    return lines


def _temperature(lines: Lines) -> float | None:
    """Give the hottest plausible sensor, in °C, of the processor where one is called so."""
    zones = {path.removesuffix("/temp"): texts[0] for path, texts in lines.items() if path.endswith("/temp")}
    named = [zone for zone in zones if re.search(CPU_ZONE, _first(lines, f"{zone}/type"), re.IGNORECASE)]
    texts = [zones[zone] for zone in named or zones] or _thermal_service(lines)
    values = [float(text) for text in texts if re.fullmatch(r"-?\d+(\.\d+)?", text)]
    # The kernel's unit is a thousandth of a degree; some phones give degrees. A zone that is off reads 0.
    degrees = [value / 1000 if abs(value) >= 1000 else value for value in values]
    return max((value for value in degrees if value and -40 < value < 150), default=None)


def _thermal_service(lines: Lines) -> list[str]:
    """Temperatures of type 0, the processor, that Android's thermal service gives; the cached ones may be old."""
    said = "\n".join(lines.get("thermalservice", ()))
    _, fresh, now = said.partition("Current temperatures from HAL")
    return re.findall(r"mValue=(-?\d+(?:\.\d+)?), mType=0,", now if fresh else said)


def _android(lines: Lines) -> Android | None:
    level = _property(lines, "build.version.sdk")
    if not level.isdecimal():
        return None
    battery = re.fullmatch(r"level: (\d{1,3})", _first(lines, "battery"))
    awake = re.fullmatch(r"mWakefulness=(\w+)", _first(lines, "power"))
    return Android(
        api_level=int(level),
        release=_property(lines, "build.version.release"),
        model=_property(lines, "product.model"),
        board=_property(lines, "product.board"),
        soc=_property(lines, "soc.model"),
        abi=_property(lines, "product.cpu.abi"),
        battery_percent=int(battery[1]) if battery else None,
        screen_on=awake[1] == "Awake" if awake else None,
    )


def _clusters(lines: Lines, named: Mapping[int, str]) -> tuple[Cluster, ...]:
    cpu = "/sys/devices/system/cpu/cpu"
    parts, max_khz = dict(named), {}
    for path, texts in lines.items():
        number, _, file = path.removeprefix(cpu).partition("/")
        if not path.startswith(cpu) or not number.isdecimal():
            continue
        if file == "cpufreq/cpuinfo_max_freq" and texts[0].isdecimal():
            max_khz[int(number)] = int(texts[0])
        elif file.endswith("midr_el1") and part_of_midr(texts[0]):
            parts[int(number)] = part_of_midr(texts[0])
    online = cpu_numbers(_first(lines, "/sys/devices/system/cpu/online"))
    return clusters({number: parts.get(number, "") for number in online or parts}, max_khz)


def _bits(lines: Lines) -> int | None:
    bits = _first(lines, "LONG_BIT")
    if bits in ("32", "64"):
        return int(bits)
    stack = re.match(r"([0-9a-f]+)-", _first(lines, "/proc/self/maps"))  # busybox has no getconf
    return (64 if len(stack[1]) > 8 else 32) if stack else None


def _page_bytes(lines: Lines) -> int | None:
    if _first(lines, "PAGESIZE").isdecimal():
        return int(_first(lines, "PAGESIZE"))
    found = re.search(r"(\d+) kB", _first(lines, "/proc/self/smaps"))
    return int(found[1]) * 1024 if found else None


def _property(lines: Lines, name: str) -> str:
    return _first(lines, f"[ro.{name}]").removeprefix("[").removesuffix("]")


def _first(lines: Lines, label: str) -> str:
    return (lines.get(label) or ("",))[0]
