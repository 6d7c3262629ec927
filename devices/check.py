"""The doctor of a device that is benchmarked: each thing that a benchmark needs there, and what to do about it."""

from __future__ import annotations

import importlib.util
import re
import shlex
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from devices import profile as profiles
from devices import registry
from devices.device import OWN_GOVERNORS, THROTTLED, Android, DeviceInfo, probe
from devices.errors import DeviceError, ProfileError, RuntimeMissing
from devices.profile import Profile
from devices.registry import Target
from devices.shells.shell import Shell

FREE_BYTES = 200_000_000
"""For the runtime bundle (35 MB), its archive, and models."""

TOOLS = ("sha256sum", "tar", "setsid")

_GOVERNOR = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
_SLOW_GOVERNORS = ("powersave", "conservative", "userspace")
_COOL = "let it cool down, give it a heat sink or a fan"
_VCGENCMD = "sudo apt install raspi-utils, and sudo usermod -aG video USER for whoever logs in there"
_POWER = "use the power supply made for it, and its own cable: 5 V 3 A, 5 A for a Raspberry Pi 5"

# An executable script, not a copy of `true`: on phones that is one file with a hundred names. Where nothing may be
# executed (noexec), the kernel refuses it.
_GROUND_SCRIPT = f"""
f=$1/check-$$
s=$(command -v sh); case $s in /*) ;; *) s=/bin/sh ;; esac
printf '#!%s\\necho runs\\n' "$s" >"$f" && chmod 700 "$f" && printf 'exec:%s\\n' "$("$f" 2>&1)"
rm -f "$f"
for t in {" ".join(TOOLS)}; do command -v $t >/dev/null && printf 'tool:%s\\n' $t; done
for f in "$1"/bundles/*/.complete; do [ -f "$f" ] && printf 'bundle:%s\\n' "$f"; done
df -Pk "$1" | tail -n 1 | sed 's/^/df:/'
cd "$1" && du -sk bundles files 2>/dev/null | sed 's/^/du:/'
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked for on a device.

    Attributes:
        name: what.
        ok: it is as it should be.
        needed: without it there is no benchmark; otherwise its numbers are only worse, or less sure.
        found: what there is.
        fix: what to do; "" where there is nothing to do.
    """

    name: str
    ok: bool
    needed: bool
    found: str
    fix: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """A device, and whether it answers now.

    Attributes:
        info: what it tells of itself; None where it does not answer.
        profile: the one the user chose, else the one that fits; None where none does.
        connect_ms: how long until it told what it is.
        trouble: why it does not answer, or broke off, and what to do; "" where it does answer.
    """

    target: Target
    info: DeviceInfo | None
    profile: Profile | None
    connect_ms: float
    trouble: str


def look(target: Target) -> Sighting:
    """See whether a device answers, and what it is. Raises nothing that is the device's fault; ProfileError."""
    return _look(target, lambda _shell, _info: [])[0]


def survey() -> tuple[Sighting, ...]:
    """Look at this machine, the devices that the user has named, and the phones that adb sees, all at once."""
    named = registry.targets()
    unnamed, troubled = _phones(named)
    asked = (*named, *unnamed)
    with ThreadPoolExecutor(max_workers=16) as pool:
        return (*pool.map(_seen, asked), *troubled)


def _seen(target: Target) -> Sighting:
    try:
        return look(target)
    except ProfileError as exc:
        if not target.profile:  # then they are all in doubt
            raise
        return Sighting(target, None, None, 0.0, str(exc))


def examine(target: Target) -> tuple[Sighting, tuple[Check, ...]]:
    """Look for each thing that a benchmark needs on a device. Raises ProfileError."""
    seen, found = _look(target, lambda shell, info: [*_machine(info), *_ground(shell, target)])
    if seen.info is None:
        return seen, (Check("reachable", False, True, seen.trouble, ""),)
    reached = Check("reachable", True, True, f"told what it is after {seen.connect_ms:.0f} ms", "")
    checks = [reached, *found, *_state(seen.info, seen.profile)]
    if seen.trouble:
        checks.append(Check("connection", False, True, seen.trouble, ""))
    if seen.info.android:
        checks += _phone(seen.info.android, target)
    return seen, (*checks, _published(seen.profile, seen.info))


def _look(target: Target, more: Callable[[Shell, DeviceInfo], list[Check]]) -> tuple[Sighting, list[Check]]:
    """Reach a device, see what it is, and ask more of it while it is reached."""
    try:
        profile = profiles.find(target.profile) if target.profile else None
    except ProfileError as exc:
        raise ProfileError(f"{target.name}: {exc}") from exc
    start = time.perf_counter()
    info, took_ms = None, 0.0
    try:
        with registry.open_shell(target) as shell:
            info = probe(shell, target.kind)
            took_ms = 1e3 * (time.perf_counter() - start)
            profile = profile or profiles.matching(info)
            return Sighting(target, info, profile, took_ms, ""), more(shell, info)
    except DeviceError as exc:
        if isinstance(exc, ProfileError):
            raise
        return Sighting(target, info, profile, took_ms, str(exc)), []


def _phones(named: tuple[Target, ...]) -> tuple[list[Target], list[Sighting]]:
    """List phones that have no name here: those that are ready, and those that are not."""
    from devices.shells.adb import phones

    serials = {target.address for target in named if target.kind == "adb"}
    try:
        seen = [phone for phone in phones() if phone.serial not in serials]
    except RuntimeMissing:  # no adb: then there are no phones
        return [], []
    except DeviceError as exc:
        return [], [Sighting(Target("android", "adb", ""), None, None, 0.0, str(exc))]
    ready, troubled = [], []
    for phone in seen:
        target = Target(registry.ANDROID + phone.serial, "adb", phone.serial)
        if phone.advice:
            troubled.append(Sighting(target, None, None, 0.0, phone.advice))
        else:
            ready.append(target)
    return ready, troubled


def _machine(info: DeviceInfo) -> tuple[Check, ...]:
    fits = info.arch in profiles.ARCHES
    arch = "a benchmark needs an ARMv8 (Raspberry Pi 3 or newer) or x86-64 processor, and a 64-bit system on it"
    wide = info.bits != 32
    bits = "install a 64-bit system, such as Raspberry Pi OS (64-bit), raspberrypi.com/software"
    return (
        Check("processor", fits, True, f"{info.arch}, {', '.join(info.cpu_parts) or 'unknown'}", "" if fits else arch),
        Check("64-bit programs", wide, True, f"{info.bits or 'unknown'} bits, {info.os}", "" if wide else bits),
    )


def _ground(shell: Shell, target: Target) -> list[Check]:
    """Check our folder there, the tools we use, and the room there is."""
    root = shell.root
    answer = shell.run(("sh", "-c", _GROUND_SCRIPT, "sh", root)).stdout.decode(errors="replace")
    runs = re.search(r"^exec:runs$", answer, re.MULTILINE) is not None
    why = re.search(r"^exec:(.+)$", answer, re.MULTILINE)
    said = root if runs else f"{root}: {why[1] if why else 'no file can be written'}"
    elsewhere = "it lies where nothing may be executed (noexec): choose a folder elsewhere, or mount it without noexec"
    lacking = [tool for tool in TOOLS if f"tool:{tool}\n" not in answer]
    install = "sudo apt install coreutils tar util-linux, or what supplies them there"
    free = re.search(r"^df:.*\s\d+\s+-?\d+\s+(-?\d+)\s+\d+%", answer, re.MULTILINE)
    room = int(free[1]) * 1024 if free else None
    ours = 1024 * sum(map(int, re.findall(r"^du:(\d+)", answer, re.MULTILINE)))  # old files make room, a runtime serves
    enough = room is None or room + ours >= FREE_BYTES
    more = f"a benchmark takes up to {FREE_BYTES / 1e6:.0f} MB: edgenet devices clean, or make room"
    tools = f"missing: {', '.join(lacking)}" if lacking else ", ".join(TOOLS)
    left = "not told" if room is None else f"{room / 1e6:,.0f} MB free"
    checks = [
        Check("folder to execute from", runs, True, said, "" if runs else elsewhere),
        Check("tools", not lacking, True, tools, install if lacking else ""),
        Check("room", enough, True, left, "" if enough else more),
    ]
    checks.append(_runtimes_here() if target.kind == "local" else _runtime("\nbundle:" in answer, target))
    return checks


def _runtimes_here() -> Check:
    """Check Python's own: on this machine they serve."""
    there = [name for name in ("ai_edge_litert", "tflite_runtime", "onnxruntime") if importlib.util.find_spec(name)]
    found = ", ".join(there) or "neither LiteRT nor ONNX Runtime"
    return Check("runtime", bool(there), True, found, "" if there else 'pip install "edgenet[device]"')


def _runtime(there: bool, target: Target) -> Check:
    if there:
        return Check("runtime", True, False, "there", "")
    return Check(
        "runtime",
        False,
        False,
        "not there yet: the first benchmark puts it there",
        f"edgenet devices setup {shlex.quote(target.name)}",
    )


def _state(info: DeviceInfo, profile: Profile | None) -> list[Check]:
    state = info.state
    checks = [_governor(info)] if state.governor else []
    if state.temperature_c is not None:
        limit = profile.throttle_c if profile else None
        cool = limit is None or state.temperature_c < limit
        at = f", it slows down at {limit:.0f} °C" if limit else ""
        checks.append(Check("temperature", cool, False, f"{state.temperature_c:.1f} °C{at}", "" if cool else _COOL))
    if state.throttled is not None:
        checks += _throttled(state.throttled)
    elif info.board.startswith("Raspberry Pi"):
        found = "not told: vcgencmd get_throttled gives no bits, so a repetition that it slowed is not noticed"
        checks.append(Check("full speed now", False, False, found, _VCGENCMD))
    if state.load_1m is not None:
        checks.append(_load(info, state.load_1m))
    return checks


def _governor(info: DeviceInfo) -> Check:
    governor, driver = info.state.governor or "", info.state.clock_driver or ""
    itself = driver in OWN_GOVERNORS
    if governor == "performance" or itself or info.android:
        return Check("governor", True, False, f"{governor} ({driver})" if itself else governor, "")
    slow = governor in _SLOW_GOVERNORS
    meaning = "timings may be those of a low clock" if slow else "the clock follows the load, timings begin slower"
    fix = f"echo performance | sudo tee {_GOVERNOR}"
    return Check("governor", not slow, False, f"{governor}: {meaning}", fix)


def _throttled(bits: int) -> tuple[Check, Check]:
    now = [words for bit, words in THROTTLED.items() if bits & bit]
    before = [words for bit, words in THROTTLED.items() if bits & bit << 16]
    return (
        Check("full speed now", not now, True, "; ".join(now) or "nothing holds it back", _advice(bits)),
        Check("full speed since it started", not before, False, "; ".join(before) or "yes", _advice(bits >> 16)),
    )


def _advice(bits: int) -> str:
    """Say what to do about throttle bits: under-voltage caps the clock, too, and comes first."""
    if bits & 1:
        return _POWER
    return _COOL if bits & 0b1110 else ""


def _load(info: DeviceInfo, load: float) -> Check:
    if info.android:  # counts kernel threads that wait: it says nothing
        return Check("load", True, False, f"{load:.2f}", "")
    processors = sum(len(cluster.cpus) for cluster in info.clusters) or 1
    idle = load < 0.5 + 0.25 * processors
    found = f"{load:.2f} on {processors} processors"
    return Check("load", idle, False, found, "" if idle else "end what else runs there: top shows it")


def _phone(phone: Android, target: Target) -> list[Check]:
    checks = []
    if phone.screen_on is not None:
        dark = not phone.screen_on
        fix = "switch its screen off: what is drawn takes time from the processor"
        checks.append(Check("screen", dark, False, "off" if dark else "on", "" if dark else fix))
    if phone.battery_percent is not None:
        full = phone.battery_percent > 50
        fix = "charge it: phones slow down on a low battery"
        checks.append(Check("battery", full, False, f"{phone.battery_percent} %", "" if full else fix))
    if phone.api_level >= 30:
        serial = f"-s {shlex.quote(target.address)} " if target.address else ""
        fix = f"for steadier clocks, adb {serial}shell cmd power set-fixed-performance-mode-enabled true"
        checks.append(Check("fixed performance", True, False, f"Android {phone.release} can hold its clocks", fix))
    return checks


def _published(profile: Profile | None, info: DeviceInfo) -> Check:
    if profile is None:
        return Check("profile", True, False, "none fits: nothing is known of it beforehand", "")
    wrong = profiles.contradicted(profile, info)
    if wrong:
        return Check("profile", False, False, wrong, "edgenet devices remove it, and add it without --profile")
    count = len(profile.published)
    known = f"{count} published latencies to compare with" if count else "nobody has published latencies for it"
    return Check("profile", True, False, f"{profile.name}: {known}", "")
