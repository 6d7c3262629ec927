"""The lines of the native runner, read as strictly as a stranger's: a broken model file can make it print anything."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from devices.device import CPUFREQ, DeviceState, read_state

KINDS = ("model", "state", "samples", "op", "end", "error")
STATES = ("start", "warm", "end")

_MOST_MS = 1e9
_LONGEST_NS = 86_400_000_000_000  # the longest cap there is
_MOST_TEXT = 4096


class LineError(ValueError):
    """A line is none of the runner's."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line; every method takes one value, and raises LineError where it is missing or absurd."""

    kind: str
    fields: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Take a text."""
        value = self.fields.get(key)
        if not isinstance(value, str) or len(value) > _MOST_TEXT:
            raise self._wrong(key)
        return value

    def hash(self, key: str) -> str:
        """Take 16 hexadecimal digits."""
        value = self.text(key)
        if not re.fullmatch(r"[0-9a-f]{16}", value):
            raise self._wrong(key)
        return value

    def number(self, key: str) -> float:
        """Take a duration, in whatever unit: not negative, and not absurd."""
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key)
        if not (math.isfinite(value) and 0 <= value <= _MOST_MS):
            raise self._wrong(key)
        return float(value)

    def whole(self, key: str, low: int, high: int) -> int:
        """Take a whole number of a range."""
        value: Any = self.fields.get(key)
        if not _is_whole(value) or not low <= value <= high:
            raise self._wrong(key)
        return int(value)

    def samples(self) -> list[int]:
        """Take the nanoseconds of a samples line."""
        values = self._list("ns")
        if not all(_is_whole(value) and 0 <= value <= _LONGEST_NS for value in values):
            raise self._wrong("ns")
        return values

    def readings(self, key: str) -> list[int | None]:
        """Take a list of readings, None where one could not be read."""
        values = self._list(key)
        if not all(value is None or (_is_whole(value) and 0 <= value < 1 << 40) for value in values):
            raise self._wrong(key)
        return values

    def texts(self, key: str) -> list[str]:
        """Take a list of texts."""
        values = self._list(key)
        if not all(isinstance(value, str) and len(value) <= _MOST_TEXT for value in values):
            raise self._wrong(key)
        return values

    def _list(self, key: str) -> list[Any]:
        values = self.fields.get(key)
        if not isinstance(values, list) or len(values) > 1 << 20:
            raise self._wrong(key)
        return values

    def _wrong(self, key: str) -> LineError:
        return LineError(f"{self.kind}: {key} is {self.fields.get(key)!r:.60}")


def read_lines(stdout: bytes) -> list[Line]:
    """Read all lines; raises LineError."""
    lines = []
    for text in stdout.splitlines():
        if not text.strip():
            continue
        try:
            fields = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as exc:
            raise LineError(repr(text[:60])) from exc
        if not isinstance(fields, dict) or fields.get("kind") not in KINDS:
            raise LineError(repr(text[:60]))
        lines.append(Line(fields["kind"], fields))
    states = [line.text("at") for line in lines if line.kind == "state"]
    if states != list(STATES[: len(states)]):
        raise LineError(f"states {states}")
    return lines


def read_device_state(line: Line, cpus: str) -> DeviceState:
    """Read a state line by the rules for any device's files; frequency: of the first of `cpus`, "4-7"."""
    first = re.match(r"\d+", cpus)
    frequencies = line.readings("freq_khz")
    number = int(first[0]) if first else 0
    frequency = frequencies[number] if number < len(frequencies) else None
    files = {
        "/proc/loadavg": line.text("loadavg"),
        f"{CPUFREQ}/scaling_governor": line.text("governor"),
        f"{CPUFREQ}/scaling_driver": line.text("driver"),
        f"{CPUFREQ}/scaling_cur_freq": "" if frequency is None else str(frequency),
    }
    zones = zip(line.texts("zones"), line.readings("temp_mc"), strict=False)
    for i, (zone, temperature) in enumerate(zones):
        if temperature is not None:
            files[f"/sys/class/thermal/thermal_zone{i}/type"] = zone
            files[f"/sys/class/thermal/thermal_zone{i}/temp"] = str(temperature)
    if line.fields.get("throttled") is not None:
        files["vcgencmd"] = f"throttled={line.text('throttled')}"
    return read_state({path: [text] for path, text in files.items()})


def _is_whole(value: object) -> bool:
    return type(value) is int  # True is an int, too


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
