"""What /proc/cpuinfo says of processors: their names, what they can do, which of them are alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# /proc/cpuinfo's names of what makes int8 and float16 fast: dot products on x86; on arm sdot, matrix multiply and
# half floats.
ISA_FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "fphp", "asimdhp")
INT8_FEATURES = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")

# (implementer << 12 | part) of MIDR_EL1. Source: util-linux 2.40, sys-utils/lscpu-arm.c; the Linux kernel's cputype.h.
_PARTS = {
    0x41B76: "arm1176",
    0x41C07: "cortex-a7",
    0x41C08: "cortex-a8",
    0x41C09: "cortex-a9",
    0x41C0D: "cortex-a17",
    0x41C0F: "cortex-a15",
    0x41D01: "cortex-a32",
    0x41D02: "cortex-a34",
    0x41D03: "cortex-a53",
    0x41D04: "cortex-a35",
    0x41D05: "cortex-a55",
    0x41D06: "cortex-a65",
    0x41D07: "cortex-a57",
    0x41D08: "cortex-a72",
    0x41D09: "cortex-a73",
    0x41D0A: "cortex-a75",
    0x41D0B: "cortex-a76",
    0x41D0C: "neoverse-n1",
    0x41D0D: "cortex-a77",
    0x41D0E: "cortex-a76ae",
    0x41D40: "neoverse-v1",
    0x41D41: "cortex-a78",
    0x41D42: "cortex-a78ae",
    0x41D44: "cortex-x1",
    0x41D46: "cortex-a510",
    0x41D47: "cortex-a710",
    0x41D48: "cortex-x2",
    0x41D49: "neoverse-n2",
    0x41D4A: "neoverse-e1",
    0x41D4B: "cortex-a78c",
    0x41D4C: "cortex-x1c",
    0x41D4D: "cortex-a715",
    0x41D4E: "cortex-x3",
    0x41D4F: "neoverse-v2",
    0x41D80: "cortex-a520",
    0x41D81: "cortex-a720",
    0x41D82: "cortex-x4",
    0x41D84: "neoverse-v3",
    0x41D85: "cortex-x925",
    0x41D87: "cortex-a725",
    0x41D8E: "neoverse-n3",
    0x4E003: "denver-2",
    0x4E004: "carmel",
    0x51001: "oryon",
    0x51201: "kryo-gold",
    0x51205: "kryo-gold",
    0x51211: "kryo-silver",
    0x51800: "kryo-2xx-gold",
    0x51801: "kryo-2xx-silver",
    0x51802: "kryo-3xx-gold",
    0x51803: "kryo-3xx-silver",
    0x51804: "kryo-4xx-gold",
    0x51805: "kryo-4xx-silver",
    0x53001: "exynos-m1",
    0x53002: "exynos-m3",
    0x53003: "exynos-m4",
    0x53004: "exynos-m5",
    0x61022: "apple-icestorm-m1",
    0x61023: "apple-firestorm-m1",
    0x61032: "apple-blizzard-m2",
    0x61033: "apple-avalanche-m2",
    0xC0AC3: "ampere-1",
    0xC0AC4: "ampere-1a",
}


@dataclass(frozen=True, slots=True)
class Processors:
    """What /proc/cpuinfo says.

    Attributes:
        parts: name of each processor that is on, by its number: "cortex-a76"; on x86 the model's name.
        isa: those of ISA_FEATURES that all of them have.
        model: "AMD EPYC 7R13"; on arm the name of the board or chip, "" where nothing is said.
    """

    parts: Mapping[int, str]
    isa: tuple[str, ...]
    model: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """Processors that are alike: of one kind and one highest clock."""

    cpus: tuple[int, ...]
    part: str
    max_khz: int | None


def read_cpuinfo(lines: Iterable[str]) -> Processors:
    """Read the lines of /proc/cpuinfo; what is missing stays empty."""
    blocks: list[dict[str, str]] = []
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if (key == "processor" and value.isdigit()) or not blocks:
            blocks.append({})
        blocks[-1].setdefault(key, value)
    model = next((block[key] for key in ("model name", "Model", "Hardware") for block in blocks if block.get(key)), "")
    flags = [set(text.split()) for block in blocks if (text := block.get("flags") or block.get("Features"))]
    common = set.intersection(*flags) if flags else set()
    # Kernels for 32-bit ARM describe all processors once, below the last.
    shared = _part(blocks[-1]) if blocks else ""
    numbered = [(int(number), block) for block in blocks if (number := block.get("processor", "")).isdigit()]
    parts = {number: _part(block) or block.get("model name") or shared for number, block in numbered}
    return Processors(parts, tuple(name for name in ISA_FEATURES if name in common), model)


def part_of_midr(text: str) -> str:
    """Name a processor by its MIDR_EL1, such as 0x00000000410fd083; "" if that is no number."""
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text):
        return ""
    midr = int(text, 16)
    return _name(midr >> 24 & 0xFF, midr >> 4 & 0xFFF)


def cpu_numbers(text: str) -> tuple[int, ...]:
    """Read the kernel's list of processors, such as 0-3,6; () for anything else."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        return ()
    spans = [tuple(map(int, span.split("-"))) for span in text.split(",")]
    return tuple(sorted({cpu for span in spans for cpu in range(span[0], span[-1] + 1)}))


def clusters(parts: Mapping[int, str], max_khz: Mapping[int, int]) -> tuple[Cluster, ...]:
    """Group processors that are alike, in the order of their numbers.

    By kind and highest clock, not by who shares a clock: on x86 each has one of its own.
    """
    groups: dict[tuple[str, int | None], list[int]] = {}
    for cpu in sorted(parts):
        groups.setdefault((parts[cpu], max_khz.get(cpu)), []).append(cpu)
    return tuple(Cluster(tuple(cpus), part, khz) for (part, khz), cpus in groups.items())


def _part(block: Mapping[str, str]) -> str:
    implementer, part = block.get("CPU implementer", ""), block.get("CPU part", "")
    if not re.fullmatch(r"0x[0-9a-fA-F]+", implementer) or not re.fullmatch(r"0x[0-9a-fA-F]+", part):
        return ""
    return _name(int(implementer, 16), int(part, 16))


def _name(implementer: int, part: int) -> str:
    return _PARTS.get(implementer << 12 | part, f"arm {implementer:#04x}/{part:#05x}")
