"""How fast model files run, on one device or several: measured in turns, kept, and explained."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from devices.errors import DeviceError
from devices.latency import Failed, Latency, Repetition, measure
from devices.machine import cores, isa_features
from devices.profile import against_published, contradicted, unusual_threads
from devices.runtimes.model_file import check_model_file
from devices.runtimes.timing import Schedule as Schedule
from edgenet import artifact
from edgenet.conditions import conditions
from edgenet.gain import Gain as Gain
from edgenet.gain import gain_of, outside
from edgenet.progress import Progress

if TYPE_CHECKING:
    from devices.bench import Bench
    from devices.native.runner import OperatorTime
    from devices.registry import Target
    from edgenet.artifact import Manifest
    from edgenet.results.recorder import Recorder

Tell = Callable[[int, int, str], None]
Keep = Callable[[Path, int, Repetition], None]

LOCAL = "local"
EXPLAINED = Schedule(warmup_s=0.1, warmup_runs=3, duration_s=0.3, min_runs=5, cap_s=5)
"""How long operators are timed to say why a file is not faster."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is to be measured.

    Attributes:
        paths: .tflite and .onnx files.
        threads: of one inference; each number is measured.
        schedule: durations and repetitions.
        native: the native runner times files on this machine, too, as it does on the others.
        wait_s: for a device that another edgenet holds.
        profile: time each operator, in a run apart.
    """

    paths: Sequence[Path]
    threads: Sequence[int]
    schedule: Schedule
    native: bool = False
    wait_s: float = 60.0
    profile: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One file on one device with one number of threads.

    Attributes:
        latency: as measured.
        precision: of the file; "" where it has no manifest.
        runner: what timed it: "python" or "native".
        board: what the device is; "" where it was not asked.
        gain: over its float sibling in the same call; None where there is none.
        published: how it compares with what others measured on such a board, or that it is another board; "" where it
            compares well or nobody did.
        threads_note: that so many threads make no sense on such a board; "" where they do, or nobody knows.
        outside: what runs outside of the delegate, where neither the runtime nor the gain tells; "" where little does.
        started_at: of its device's turn, UTC, ISO 8601; "" where nothing is kept.
        conditions: what met all repetitions alike and so is not in the verdict, a line each: a busy device, a low clock
    """

    latency: Latency
    precision: str
    runner: str
    board: str
    gain: Gain | None
    published: str
    threads_note: str = ""
    outside: str = ""
    conditions: tuple[str, ...] = ()
    started_at: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """Times of one file's operators on one device."""

    device: str
    path: Path
    threads: int
    operators: tuple[OperatorTime, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What one call measured.

    Attributes:
        rows: a result each.
        profiles: operators' times, where they were asked for.
        failures: a line for each device, or file on one, that could not be measured.
        command: the command line.
        tools: versions of what measures on this machine, by its name.
    """

    rows: tuple[Row, ...]
    profiles: tuple[Profile, ...]
    failures: tuple[str, ...]
    command: str
    tools: Mapping[str, str]


def on_devices(
    call: Call, devices: Sequence[str], command: str, progress: Progress, warn: Callable[[str], None]
) -> Benchmark:
    """Measure files on several devices, one after another; a device, or a file, that fails spoils no other's results.

    Every repetition is recorded as it ends (edgenet.results.kept), and so outlives whatever happens next.

    Args:
        call: what is to be measured.
        devices: "local", names of known devices, user@host, android:SERIAL.
        command: the command line, for the record.
        progress: told of each step.
        warn: told in a line that results cannot be recorded.

    Raises:
        UnknownDevice: a name is none; nothing has been measured then.
        ModelUnreadable: a file is plainly no model; likewise.
        DeviceError: nothing could be measured on the only device.
        KeyboardInterrupt: as Ctrl-C does; its text says what is kept.
    """
    from devices import registry
    from edgenet.results.recorder import Recorder

    once: dict[Path, Path] = {}
    for path in call.paths:
        check_model_file(path)
        once.setdefault(path.resolve(), path)  # one that is named twice is measured once
    call = dataclasses.replace(call, paths=tuple(once.values()))
    targets = [registry.find(name) for name in dict.fromkeys(devices)]
    found = _Found()
    with Recorder(command, warn=warn) as recorder:
        for target in targets:
            progress(f"connect to {target.name}", 0, 0)
            before = recorder.kept
            try:
                _on_device(call, target, recorder, found, progress)
            except DeviceError as exc:
                kept = _kept(recorder.kept - before)
                found.failed(target, f"{exc} ({kept})" if kept else str(exc))
            except KeyboardInterrupt as exc:
                raise KeyboardInterrupt(_kept(recorder.kept) or "no repetition is kept yet") from exc
    if len(targets) == 1 and not found.rows:
        raise DeviceError("; ".join(words for _, words in found.failures))
    named = [f"{name}: {words}" if len(targets) > 1 else words for name, words in found.failures]
    return Benchmark(tuple(found.rows), tuple(found.profiles), tuple(named), command, recorder.tools)


@dataclass(slots=True)
class _Found:
    """What a call has measured so far; failures: (device, what went wrong)."""

    rows: list[Row] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def failed(self, target: Target, words: str) -> None:
        if (target.name, words) not in self.failures:  # with another number of threads, too
            self.failures.append((target.name, words))


def _kept(count: int) -> str:
    return f"{count} repetition{'s' * (count != 1)} kept: edgenet results" if count else ""


def _on_device(call: Call, target: Target, recorder: Recorder, found: _Found, progress: Progress) -> None:
    from devices.bench import open_bench

    def tell(what: str) -> None:
        progress(what, 0, 0)

    def failed(_path: Path, _threads: int, exc: DeviceError) -> None:
        found.failed(target, str(exc))

    with open_bench(target, native=call.native, wait_s=call.wait_s, tell=tell) as bench:
        keep = recorder.keeper(bench.device, target.kind, bench.runner, info=bench.info)
        rows = benchmark(call.paths, call.threads, call.schedule, progress, bench=bench, keep=keep, failed=failed)
        recorder.finished([row.latency for row in rows])
        found.rows += [dataclasses.replace(row, started_at=recorder.started_at) for row in rows]
        for row in rows if call.profile else ():
            path, threads = row.latency.path, row.latency.threads
            progress(f"time the operators of {path.name} on {bench.device}", 0, 0)
            try:
                found.profiles.append(Profile(bench.device, path, threads, bench.profile(path, threads)))
            except DeviceError as exc:
                found.failed(target, f"operators of {path.name}: {exc}")


def benchmark(
    paths: Sequence[Path],
    threads: Sequence[int],
    schedule: Schedule,
    progress: Progress,
    *,
    bench: Bench | None = None,
    keep: Keep = lambda *_: None,
    failed: Failed | None = None,
) -> tuple[Row, ...]:
    """Measure the latency of model files on one device, interleaved, so that their ratios can be trusted.

    Args:
        paths: .tflite and .onnx files.
        threads: of one inference; each number is measured.
        schedule: durations and repetitions.
        progress: told of each step.
        bench: the device; None: this machine, through Python.
        keep: told of each repetition as it ends.
        failed: told of a file that a runtime cannot run, which then has no row; without it, that is raised.

    Raises:
        DeviceError: a file cannot be opened, or the device is lost.
    """
    manifests = {path: _manifest(path) for path in map(check_model_file, paths)}
    where = f" on {bench.device}" if bench else ""

    def tell(done: int, total: int, what: str) -> None:
        progress(f"measure{where} {what}".rstrip(), done, total)

    results = measure(paths, threads, schedule, bench=bench, progress=tell, keep=keep, failed=failed)
    features = bench.isa if bench else isa_features()
    rows = []
    for one in results:
        manifest = manifests[one.path]
        explained = functools.partial(_operators, one, bench, tell)
        gain = gain_of(one, results, manifests, features, explained)
        rows.append(
            Row(
                latency=one,
                precision=manifest.precision if manifest else "",
                runner=bench.runner if bench else "python",
                board=bench.info.board if bench and bench.info else "",
                gain=gain,
                published=_published(one, manifest, bench),
                threads_note=_threads_note(one.threads, bench),
                outside="" if gain else _outside(one, manifest, explained),
                conditions=conditions(one, bench.info if bench else None),
            )
        )
    return tuple(rows)


def _outside(one: Latency, manifest: Manifest | None, operators: Callable[[], Sequence[OperatorTime]]) -> str:
    """Say what runs outside of a delegate that was offered every operator; float networks have nothing that would."""
    if one.delegate != "XNNPACK" or one.ops is not None or (manifest and manifest.precision in ("float32", "float16")):
        return ""
    return outside(operators(), one.delegate)


def _operators(one: Latency, bench: Bench | None, tell: Tell) -> tuple[OperatorTime, ...]:
    """Time the operators of a file; () where its runtime counted them, or the device is gone."""
    if bench is None or bench.runner != "native":
        return ()
    tell(0, 0, f"{one.path.name}: where its time goes")
    with contextlib.suppress(DeviceError):
        return bench.profile(one.path, one.threads, EXPLAINED)
    return ()


def _threads_note(threads: int, bench: Bench | None) -> str:
    """Say so where a number of threads makes no sense: what the device tells goes before what is known of its kind."""
    processors = sum(len(cluster.cpus) for cluster in bench.info.clusters) if bench and bench.info else 0
    if bench and bench.info and bench.info.kind == LOCAL:
        processors = min(processors, cores())  # a container, or taskset, lends fewer
    if 0 < processors < threads:
        return f"{threads} threads are more than its {processors} processors: they wait for each other"
    return unusual_threads(bench.board, threads) if bench and bench.board else ""


def _manifest(path: Path) -> Manifest | None:
    known = artifact.load(path)
    return known.manifest if known else None


def _published(one: Latency, manifest: Manifest | None, bench: Bench | None) -> str:
    """Hold a latency against those published for the network that the file was made from; on such a board alone."""
    if bench is None or bench.board is None:
        return ""
    wrong = contradicted(bench.board, bench.info) if bench.info else ""
    if wrong or manifest is None or manifest.source is None:
        return f"{wrong}: edgenet devices check {bench.device}" if wrong else ""
    spec, precision = manifest.source.spec, manifest.precision
    return against_published(bench.board, spec, precision, one.threads, one.median_ms) or ""
