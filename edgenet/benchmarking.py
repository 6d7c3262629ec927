"""How fast model files run, on one device or several: measured in turns, kept, and explained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devices.errors import DeviceError
from devices.latency import Latency, Repetition, measure, speedup
from devices.machine import INT8_FEATURES
from devices.model_file import check_model_file
from devices.profile import against_published
from devices.statistics import Ratio
from devices.timing import Schedule as Schedule
from edgenet import artifact

if TYPE_CHECKING:
    from devices.bench import Bench
    from devices.native import OperatorTime
    from edgenet.artifact import Manifest

Progress = Callable[[str, int, int], None]
Keep = Callable[[Path, int, Repetition], None]

LOCAL = "local"
GAINS = 1.05
"""An integer file is called faster than its float sibling from here on."""


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
class Gain:
    """How many times faster an integer file is than its float sibling; why: where it is hardly faster, else ""."""

    ratio: Ratio
    why: str


@dataclass(frozen=True, slots=True)
class Row:
    """One file on one device with one number of threads.

    Attributes:
        latency: as measured.
        precision: of the file; "" where it has no manifest.
        runner: what timed it: "python" or "native".
        board: what the device is; "" where it was not asked.
        gain: over its float sibling in the same call; None where there is none.
        published: how it compares with what others measured on such a board; "" where it compares well or nobody did.
    """

    latency: Latency
    precision: str
    runner: str
    board: str
    gain: Gain | None
    published: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Times of one file's operators on one device."""

    device: str
    path: Path
    threads: int
    operators: tuple[OperatorTime, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What one call measured; failures: a line for each device that could not be measured."""

    rows: tuple[Row, ...]
    profiles: tuple[Profile, ...]
    failures: tuple[str, ...]


def on_devices(
    call: Call, devices: Sequence[str], command: str, progress: Progress, warn: Callable[[str], None]
) -> Benchmark:
    """Measure files on several devices, one after another; a device that fails spoils no other's results.

    Every repetition is recorded as it ends (edgenet.results), and so outlives whatever happens next.

    Args:
        call: what is to be measured.
        devices: "local", names of known devices, user@host, android:SERIAL.
        command: the command line, for the record.
        progress: told of each step.
        warn: told in a line that results cannot be recorded.

    Raises:
        UnknownDevice: a name is none; nothing has been measured then.
        ModelUnreadable: a file is plainly no model; likewise.
        DeviceError: the only device failed.
    """
    from devices import bench, registry
    from edgenet.recorder import Recorder

    for path in call.paths:
        check_model_file(path)
    targets = [registry.find(name) for name in dict.fromkeys(devices)]
    rows: list[Row] = []
    profiles: list[Profile] = []
    failures = []

    def tell(what: str) -> None:
        progress(what, 0, 0)

    with Recorder(command, warn=warn) as recorder:
        for target in targets:
            tell(f"connect to {target.name}")
            try:
                with bench.open_bench(target, native=call.native, wait_s=call.wait_s, tell=tell) as opened:
                    keep = recorder.keeper(opened.device, target.kind, opened.runner, info=opened.info)
                    made = benchmark(call.paths, call.threads, call.schedule, progress, bench=opened, keep=keep)
                    recorder.finished(made)
                    rows += made
                    if call.profile:
                        profiles += _profiles(call, opened, progress)
            except DeviceError as exc:
                if len(targets) == 1:
                    raise
                failures.append(f"{target.name}: {exc}")
    return Benchmark(tuple(rows), tuple(profiles), tuple(failures))


def _profiles(call: Call, bench: Bench, progress: Progress) -> Iterator[Profile]:
    for path in call.paths:
        for threads in call.threads:
            progress(f"time the operators of {path.name} on {bench.device}", 0, 0)
            yield Profile(bench.device, path, threads, bench.profile(path, threads))


def benchmark(
    paths: Sequence[Path],
    threads: Sequence[int],
    schedule: Schedule,
    progress: Progress,
    *,
    bench: Bench | None = None,
    keep: Keep = lambda *_: None,
) -> tuple[Row, ...]:
    """Measure the latency of model files on one device, interleaved, so that their ratios can be trusted.

    Args:
        paths: .tflite and .onnx files.
        threads: of one inference; each number is measured.
        schedule: durations and repetitions.
        progress: told of each step.
        bench: the device; None: this machine, through Python.
        keep: told of each repetition as it ends.

    Raises:
        DeviceError: a file cannot be opened, or the device is lost.
    """
    manifests = {path: _manifest(path) for path in map(check_model_file, paths)}
    where = f" on {bench.device}" if bench else ""

    def tell(done: int, total: int, what: str) -> None:
        progress(f"measure{where} {what}".rstrip(), done, total)

    results = measure(paths, threads, schedule, bench=bench, progress=tell, keep=keep)
    features = bench.isa if bench else None
    rows = []
    for one in results:
        manifest = manifests[one.path]
        gain = _gain(one, manifest, results, manifests, features)
        rows.append(
            Row(
                latency=one,
                precision=manifest.precision if manifest else "",
                runner=bench.runner if bench else "python",
                board=bench.info.board if bench and bench.info else "",
                gain=gain,
                published=_published(one, manifest, bench),
            )
        )
    return tuple(rows)


def _manifest(path: Path) -> Manifest | None:
    known = artifact.load(path)
    return known.manifest if known else None


def _published(one: Latency, manifest: Manifest | None, bench: Bench | None) -> str:
    """Hold a latency against those published for the network that the file was made from."""
    if bench is None or bench.board is None or manifest is None or manifest.source is None:
        return ""
    spec, precision = manifest.source.spec, manifest.precision
    return against_published(bench.board, spec, precision, one.threads, one.median_ms) or ""


def _gain(
    one: Latency,
    manifest: Manifest | None,
    results: Sequence[Latency],
    manifests: dict[Path, Manifest | None],
    features: Sequence[str] | None,
) -> Gain | None:
    """Compare with the float32 file of the same network and format, timed in the same call."""
    if manifest is None or manifest.precision not in ("int8", "int16x8", "dynamic", "float16"):
        return None
    for other in results:
        sibling = manifests[other.path]
        if sibling is None or sibling.precision != "float32" or other.threads != one.threads:
            continue
        if (sibling.format, _origin(sibling)) == (manifest.format, _origin(manifest)):
            with contextlib.suppress(ValueError):  # one of them was throttled whenever the other was not
                ratio = speedup(other, one)
                return Gain(ratio, "" if ratio.value > GAINS else _why(one, manifest, features))
    return None


def _origin(manifest: Manifest) -> tuple[object, ...]:
    """What two files must share to be siblings: the network, what it eats and what it answers."""
    return manifest.source, manifest.input.height, manifest.input.width, manifest.output.classes


def _why(one: Latency, manifest: Manifest, features: Sequence[str] | None) -> str:
    if one.delegate == "none":
        return f"no delegate: {one.delegate_note or 'the reference kernels run it'}"
    if one.ops and one.delegated_ops is not None and one.delegated_ops < one.ops:
        return f"{one.ops - one.delegated_ops} of {one.ops} operators run outside of {one.delegate}"
    if manifest.precision == "int16x8":
        return "LiteRT has no fast int16 kernels"
    if manifest.precision == "float16":
        return "float16 is smaller, not faster: it is unpacked to float32 where the processor computes"
    if features is not None and not any(name in INT8_FEATURES for name in features):
        return "the processor has no int8 dot product"
    kept = manifest.quantization.kept_float if manifest.quantization else ()
    if kept:
        return f"stayed float: {', '.join(kept)}"
    return "its operators are too small to gain"
