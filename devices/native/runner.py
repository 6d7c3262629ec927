"""The native runner on a device: started through a Shell, and its lines read as strictly as a stranger's.

The runner (devices/runner) needs no Python there. Where it lies, and what starts it, is a Place: the bundle that was
pushed to a Raspberry Pi or a phone, or this machine with the libraries of the installed Python packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from devices.device import CPU_ZONE, DeviceState
from devices.errors import DeviceError, DeviceUnfit, ModelCrashed, ModelTimeout, ModelUnreadable, RuntimeMissing
from devices.native.lines import Line, LineError, read_device_state, read_lines
from devices.native.place import Place, bundle_place, local_place, require_64_bit
from devices.runtimes.model_file import one_line
from devices.runtimes.timing import Run, Schedule
from devices.shells.shell import Result, Shell

__all__ = [
    "ENGINES",
    "NativeRun",
    "OperatorTime",
    "Place",
    "bundle_place",
    "local_place",
    "native_measure",
    "native_profile",
    "require_64_bit",
]

ENGINES: Mapping[str, str] = {".tflite": "litert", ".onnx": "ort"}
"""Suffix of a model file -> the engine that runs it."""

_NAMES = {"litert": "LiteRT", "ort": "ONNX Runtime"}
_CAUSES: Mapping[str, type[DeviceError]] = {
    "usage": DeviceError,
    "runtime": RuntimeMissing,
    "model": ModelUnreadable,
    "device": DeviceUnfit,
}
# What they are called on the device, whatever the system here: signal(7).
_SIGNALS = {
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    15: "SIGTERM",
}
_SIGALRM, _SIGKILL = 14, 9
_SLACK_S = 15.0  # how long after its own alarm a runner is given up
_MOST_RUNS = 1 << 40

# A phone's shell may preload a library of Android's own libc, which the bundle's loader cannot take. ONNX Runtime's
# official builds report to Microsoft what they run, and write an identifier of the machine into its cache.
_CLEAN = 'unset LD_PRELOAD; export ORT_DISABLE_TELEMETRY=1; exec "$@"'


@dataclass(frozen=True, slots=True)
class NativeRun:
    """One repetition by the native runner.

    Attributes:
        run: the samples, as any other runtime's.
        states: as the process started, as it was warm, as it ended; frequency and governor of the first processor used.
        runtime: "LiteRT 2.3.0".
        delegate: "XNNPACK" (offered every operator), "none", "CPUExecutionProvider".
        delegate_note: why the delegate was left out, else "".
        cpus: processors that it could use: "4-7".
        lib_ms: to open the shared library; not part of run.load_ms.
    """

    run: Run
    states: tuple[DeviceState, ...]
    runtime: str
    delegate: str
    delegate_note: str
    cpus: str
    lib_ms: float


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """Mean time of one operator; us: microseconds an inference; delegate: what ran it, "" for the runtime itself."""

    name: str
    us: float
    runs: int
    delegate: str


def native_measure(
    shell: Shell,
    place: Place,
    model: str,
    engine: str,
    threads: int,
    schedule: Schedule,
    cpus: str | None = None,
    timeout_s: float = 60.0,
    name: str = "",
) -> NativeRun:
    """Time one repetition of one model file on a device.

    model: its path there; name: how errors call it, that path by default. cpus: "4-7", those it may use. timeout_s: for
    opening it, beside the schedule's caps. Raises ModelUnreadable, ModelCrashed, ModelTimeout, RuntimeMissing,
    DeviceUnfit, and what the shell raises.
    """
    who = _Subject(shell.name, name or model)
    lines = _run(shell, place, model, engine, _options(threads, schedule, cpus), schedule, timeout_s, who)
    try:
        return _read_run(lines, engine, place)
    except LineError as exc:
        raise who.nonsense(exc) from exc


def native_profile(
    shell: Shell,
    place: Place,
    model: str,
    engine: str,
    threads: int,
    schedule: Schedule,
    cpus: str | None = None,
    timeout_s: float = 60.0,
    name: str = "",
) -> tuple[OperatorTime, ...]:
    """Time the operators of a model, in the order they ran, in a process of their own: profiling slows the whole.

    Arguments and errors are native_measure's.
    """
    who = _Subject(shell.name, name or model)
    options = (*_options(threads, schedule, cpus), "--profile", "--scratch", f"{shell.root}/run")
    lines = _run(shell, place, model, engine, options, schedule, timeout_s, who)
    try:
        _only(lines, "end")
        return tuple(
            OperatorTime(line.text("name"), line.number("us"), line.whole("runs", 1, _MOST_RUNS), line.text("delegate"))
            for line in lines
            if line.kind == "op"
        )
    except LineError as exc:
        raise who.nonsense(exc) from exc


@dataclass(frozen=True, slots=True)
class _Subject:
    """Who an error is about."""

    device: str
    model: str

    def nonsense(self, exc: LineError) -> ModelCrashed:
        said = one_line(str(exc), 80)
        return ModelCrashed(f"{self.model}: the runner on {self.device} answers nonsense ({said}): the file is corrupt")


def _options(threads: int, schedule: Schedule, cpus: str | None) -> tuple[str, ...]:
    options = {
        "--threads": threads,
        "--warmup-s": f"{schedule.warmup_s:f}",
        "--warmup-runs": schedule.warmup_runs,
        "--duration-s": f"{schedule.duration_s:f}",
        "--min-runs": max(1, schedule.min_runs),
        "--cap-s": f"{schedule.cap_s:f}",
        "--zones": CPU_ZONE,
        **({} if cpus is None else {"--cpus": cpus}),
    }
    return tuple(str(word) for pair in options.items() for word in pair)


def _run(
    shell: Shell,
    place: Place,
    model: str,
    engine: str,
    options: tuple[str, ...],
    schedule: Schedule,
    timeout_s: float,
    who: _Subject,
) -> list[Line]:
    """Run the runner to its end: its lines, none of them an error."""
    if engine not in place.libraries:
        raise RuntimeMissing(f'{who.model}: {_NAMES[engine]} is not installed here: pip install "edgenet[device]"')
    allowed = 2 * schedule.cap_s + timeout_s
    own = ("--engine", engine, "--lib", place.libraries[engine], "--model", model, "--timeout-s", f"{allowed:f}")
    command = ("sh", "-c", _CLEAN, "sh", *place.command, *own, *options)
    result = shell.run(command, timeout_s=allowed + _SLACK_S)
    if result.status not in (0, 2):
        raise _death(result, allowed, who)
    try:
        lines = read_lines(result.stdout)
        for line in lines:
            if line.kind == "error":
                said = one_line(line.text("message"), 300)
                raise _CAUSES.get(line.text("cause"), DeviceError)(f"{who.model}: {said}")
    except LineError as exc:
        raise who.nonsense(exc) from exc
    if result.status:
        raise ModelCrashed(f"{who.model}: the runner on {who.device} gave up and did not say why: {_words(result)}")
    return lines


def _death(result: Result, allowed_s: float, who: _Subject) -> DeviceError:
    """Say how a runner ended that could not say so itself."""
    words = _words(result)
    if result.status in (126, 127):
        return DeviceUnfit(f"the native runner does not start on {who.device}: {words}")
    number = result.status - 128
    if number == _SIGALRM:
        return ModelTimeout(
            f"{who.model}: no answer in {allowed_s:g} s on {who.device}, its runtime was ended: corrupt, or too slow"
        )
    how = f"died of {_SIGNALS[number]}" if number in _SIGNALS else f"ended with status {result.status}"
    if number == _SIGKILL:
        how += ", perhaps for want of memory"
    said = f" ({words})" if words else ""
    return ModelCrashed(f"{who.model}: its runtime {how} on {who.device}{said}: likely corrupt; convert it again")


def _words(result: Result) -> str:
    """Return the last thing that was complained of; what LiteRT reports as it starts is none."""
    lines = result.stderr.decode("utf-8", "replace").splitlines()
    told = [line for line in lines if line.strip() and not line.startswith(("INFO:", "WARNING:"))]
    return one_line(told[-1], 120) if told else ""


def _read_run(lines: list[Line], engine: str, place: Place) -> NativeRun:
    opened, end = _only(lines, "model"), _only(lines, "end")
    cpus = end.text("cpus")
    states = tuple(read_device_state(line, cpus) for line in lines if line.kind == "state")
    if len(states) != 3:
        raise LineError(f"{len(states)} states")
    samples = [sample for line in lines if line.kind == "samples" for sample in line.samples()]
    if not samples:
        raise LineError("no samples")
    run = Run(
        samples_ns=np.array(samples, np.int64),
        warmup_runs=end.whole("warmup_runs", 0, _MOST_RUNS),
        load_ms=opened.number("load_ms"),
        first_ms=opened.number("first_ms"),
        peak_rss_bytes=end.whole("peak_rss_bytes", 0, 1 << 50),
        output_hash=opened.hash("output_hash"),
        warm=states[1],
        end=states[2],
    )
    return NativeRun(
        run=run,
        states=states,
        runtime=_runtime(opened.text("runtime"), engine, place),
        delegate=opened.text("delegate"),
        delegate_note=opened.text("delegate_note"),
        cpus=cpus,
        lib_ms=opened.number("lib_ms"),
    )


def _only(lines: list[Line], kind: str) -> Line:
    found = [line for line in lines if line.kind == kind]
    if len(found) != 1:
        raise LineError(f"{len(found)} lines of kind {kind!r}")
    return found[0]


def _runtime(said: str, engine: str, place: Place) -> str:
    """Name the runtime with its version: the library's own word first."""
    return f"{said} {place.versions[engine]}" if said == _NAMES["litert"] and engine in place.versions else said
