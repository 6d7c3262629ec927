"""The native runner on a device that answers nonsense: whatever it prints ends in one clear error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.errors import DeviceError, DeviceUnfit, ModelCrashed, ModelTimeout, RuntimeMissing
from devices.native.runner import Place, native_measure
from devices.runtimes.timing import Schedule
from devices.shells.shell import DEFAULT_TIMEOUT_S, Result

QUICK = Schedule(warmup_s=0, warmup_runs=1, duration_s=0, min_runs=5, cap_s=2, repetitions=1)


class Told:
    """A Shell whose every command ends as it is told."""

    name, root = "told", "/nowhere"

    def __init__(self, result: Result) -> None:
        self.result = result
        self.timeout_s = 0.0

    def run(self, command: Sequence[str], timeout_s: float = DEFAULT_TIMEOUT_S, stdin: bytes = b"") -> Result:
        self.timeout_s = timeout_s
        return self.result

    def push(self, files: Mapping[str, Path], folder: str, timeout_s: float = 600.0) -> int:
        raise AssertionError

    def pull(self, path: str, timeout_s: float = 60.0) -> bytes:
        raise AssertionError

    def close(self) -> None:
        pass

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        pass


STATE = {"temp_mc": [41000], "zones": ["cpu-thermal"], "freq_khz": [600000, 1500000], "governor": "ondemand"}
STATE |= {"driver": "cpufreq-dt", "loadavg": "0.25 0.30 0.20 1/99 4242", "throttled": "0x50000", "kind": "state"}
MODEL = {"kind": "model", "runtime": "LiteRT", "delegate": "XNNPACK", "delegate_note": ""}
MODEL |= {"lib_ms": 1.5, "load_ms": 2.5, "first_ms": 3.5, "output_hash": "0123456789abcdef"}
GOOD = [
    {**STATE, "at": "start", "temp_mc": [39000]},
    MODEL,
    {**STATE, "at": "warm"},
    {**STATE, "at": "end", "temp_mc": [61000]},
    {"kind": "samples", "ns": [3, 1]},
    {"kind": "samples", "ns": [2]},
    {"kind": "end", "warmup_runs": 7, "peak_rss_bytes": 12345, "cpus": "1"},
]
TOLD_PLACE = Place(("runner",), {"litert": "lib"}, {"litert": "2.3.0"})


def say(lines: Sequence[object]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def measure_told(stdout: bytes, status: int = 0, stderr: bytes = b""):
    told = Told(Result(status, stdout, stderr))
    return native_measure(told, TOLD_PLACE, "m.tflite", "litert", 1, QUICK, timeout_s=9)


def test_the_lines_become_a_run() -> None:
    native = measure_told(say(GOOD))
    assert native.run.samples_ns.tolist() == [3, 1, 2]
    assert (native.run.warmup_runs, native.run.load_ms, native.run.first_ms, native.lib_ms) == (7, 2.5, 3.5, 1.5)
    assert (native.run.peak_rss_bytes, native.run.output_hash) == (12345, "0123456789abcdef")
    assert (native.runtime, native.delegate, native.cpus) == ("LiteRT 2.3.0", "XNNPACK", "1")
    assert [state.temperature_c for state in native.states] == [39.0, 41.0, 61.0]
    warm = native.run.warm
    assert (warm.temperature_c, native.run.end.temperature_c) == (41.0, 61.0)
    assert warm.frequency_khz == 1500000  # of the processor used, not of the first
    assert (warm.governor, warm.clock_driver, warm.load_1m, warm.throttled) == ("ondemand", "cpufreq-dt", 0.25, 0x50000)


def test_what_a_device_does_not_tell_is_none() -> None:
    silent = {"temp_mc": [None], "freq_khz": [None], "governor": "", "driver": "", "loadavg": "", "throttled": None}
    warm = measure_told(say([{**line, **silent} if line["kind"] == "state" else line for line in GOOD])).run.warm
    assert {getattr(warm, field) for field in warm.__dataclass_fields__} == {None}


def changed(index: int, **values: object) -> list[object]:
    return [{**line, **values} if i == index else line for i, line in enumerate(GOOD)]


@pytest.mark.parametrize(
    "lines",
    [
        *(
            [line for i, line in enumerate(GOOD) if i != gone and not (gone == 4 and i == 5)]
            for gone in (0, 1, 2, 3, 4, 6)
        ),
        [*GOOD, GOOD[-1]],
        [*GOOD, "text"],
        [*GOOD, {"kind": "other"}],
        [GOOD[2], GOOD[1], GOOD[0], *GOOD[3:]],
        changed(1, load_ms=-1.0),
        changed(1, load_ms=1e30),
        changed(1, load_ms=float("nan")),
        changed(1, load_ms=float("inf")),
        changed(1, load_ms="1"),
        changed(1, load_ms=True),
        changed(1, output_hash="0123"),
        changed(1, output_hash="0123456789ABCDEF"),
        changed(1, runtime=None),
        changed(1, delegate="x" * 10_000),
        changed(4, ns=[1.5]),
        changed(4, ns=[-1]),
        changed(4, ns=[True]),
        changed(4, ns=[None]),
        changed(4, ns=[10**30]),
        changed(4, ns="1"),
        changed(6, warmup_runs=-1),
        changed(6, warmup_runs=2**70),
        changed(6, peak_rss_bytes=1.5),
        changed(6, cpus=None),
        changed(0, temp_mc=[1.5]),
        changed(0, freq_khz="1"),
        changed(0, zones=[1]),
        changed(0, throttled=5),
    ],
)
def test_nonsense_is_called_so(lines: list[object]) -> None:
    with pytest.raises(ModelCrashed, match=r"m\.tflite: the runner on told answers nonsense"):
        measure_told(say(lines))


@given(st.binary(max_size=200), st.integers(0, len(say(GOOD))))
@settings(max_examples=150, deadline=None)
def test_whatever_a_device_prints_only_our_errors_leave(noise: bytes, at: int) -> None:
    good = say(GOOD)
    for stdout in (noise, good[:at] + noise + good[at:], good[:at] + noise, b"[" * 5000 + noise):
        for status in (0, 2, 139):
            said = ""
            try:
                measure_told(stdout, status)
            except DeviceError as exc:
                said = str(exc)
            assert "\n" not in said
            assert len(said) < 500


def test_how_a_runner_ended_is_told() -> None:
    litert = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nERROR: bad graph\nWARNING: x\n"
    with pytest.raises(ModelCrashed, match=r"its runtime died of SIGSEGV on told \(ERROR: bad graph\): likely corrupt"):
        measure_told(say(GOOD[:1]), 139, litert)
    with pytest.raises(ModelCrashed, match="died of SIGKILL, perhaps for want of memory"):
        measure_told(b"", 137)
    with pytest.raises(ModelCrashed, match="ended with status 3"):
        measure_told(b"", 3)
    with pytest.raises(ModelTimeout, match="no answer in 13 s on told"):
        measure_told(b"", 142)
    with pytest.raises(DeviceUnfit, match=r"does not start on told: .*GLIBC_2\.17"):
        measure_told(b"", 127, b"runner: version `GLIBC_2.17' not found")
    with pytest.raises(ModelCrashed, match="gave up and did not say why: boom"):
        measure_told(b"", 2, b"boom")
    for cause, error in {"runtime": RuntimeMissing, "device": DeviceUnfit, "new": DeviceError}.items():
        with pytest.raises(error, match="because"):
            measure_told(say([{"kind": "error", "cause": cause, "message": "because"}]), 2)


def test_the_shell_is_given_longer_than_the_runners_own_alarm() -> None:
    told = Told(Result(0, say(GOOD), b""))
    native_measure(told, TOLD_PLACE, "m.tflite", "litert", 1, replace(QUICK, cap_s=4), timeout_s=9)
    assert told.timeout_s > 2 * 4 + 9
