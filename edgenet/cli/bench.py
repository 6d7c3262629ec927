"""edgenet bench: how fast model files run, on this machine and on others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgenet.cli import options
from edgenet.cli.terminal import Progress, json_text, show, show_json, verb, warn

if TYPE_CHECKING:
    from edgenet.benchmarking import Row


class Runner(str, Enum):
    """What times files on this machine."""

    python = "python"
    native = "native"


class Backend(str, Enum):
    """What computes."""

    cpu = "cpu"


@verb
def bench(
    files: options.Files,
    device: Annotated[
        list[str] | None,
        typer.Option(help="local, a known device, user@host or android:SERIAL; repeatable."),
    ] = None,
    threads: Annotated[str, typer.Option(help="Numbers of threads, such as 1,2.")] = "1",
    repetitions: Annotated[
        int, typer.Option(help="Fresh starts of each file, interleaved; fewer than 5 prove little.", min=1)
    ] = 5,
    backend: Annotated[Backend, typer.Option(help="What computes.")] = Backend.cpu,  # noqa: ARG001 - there is one
    runner: Annotated[Runner, typer.Option(help="What times files on this machine.")] = Runner.python,
    profile_ops: Annotated[
        bool, typer.Option("--profile-ops", help="Time each operator, too, in a run apart.")
    ] = False,
    max_ms: Annotated[float | None, typer.Option(help="Exit 3 if a file's median is above this.", min=0)] = None,
    wait: Annotated[
        float,
        typer.Option(help="Seconds to wait for a device that another edgenet holds.", min=0, callback=options.finite),
    ] = 60,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the results as JSON.")] = None,
    json: options.Json = False,
) -> None:
    """Measure latency on each device: median with its interval, p90, p99, cold start, memory, and a verdict."""
    import dataclasses

    from devices.errors import DeviceError
    from devices.runtimes.timing import Schedule
    from edgenet import benchmarking
    from edgenet.appearing import check_folder
    from edgenet.errors import UsageError
    from edgenet.reports import benchmarks as report

    if max_ms is not None and not math.isfinite(max_ms):
        raise UsageError(f"--max-ms {max_ms}: give milliseconds, such as 20")
    schedule = dataclasses.replace(Schedule(), repetitions=repetitions)
    counts = options.thread_counts(threads)
    if out is not None:
        check_folder(out)
    with Progress() as progress:
        call = benchmarking.Call(
            files, counts, schedule, native=runner is Runner.native, wait_s=wait, profile=profile_ops
        )
        result = benchmarking.on_devices(call, device or [benchmarking.LOCAL], options.command_line(), progress, warn)
    document = report.document(result)
    try:
        if json:
            show_json(document)
        else:
            for table in report.tables(result):
                show(table)
    finally:  # a stdout that is closed, or full, costs no file
        if out is not None:
            _save(document, out)
    for remark in (*report.too_few(repetitions), *report.remarks(result.rows)):
        warn(remark)
    if result.failures:
        raise DeviceError("; ".join(result.failures))
    if max_ms is not None:
        _judge(result.rows, max_ms)


def _judge(rows: Sequence[Row], max_ms: float) -> None:
    """Raise GateMissed where a median is above the limit, DeviceError where nothing is proven of a file."""
    from devices.errors import DeviceError
    from edgenet.errors import GateMissed
    from edgenet.reports.short_names import short_names

    names = short_names(row.latency.path for row in rows)
    unproven = [_named(row, names) for row in rows if all(one.fault for one in row.latency.repetitions)]
    if unproven:
        raise DeviceError(f"--max-ms: no repetition counts, so nothing is proven of {', '.join(unproven)}")
    slow = [_named(row, names) for row in rows if row.latency.median_ms > max_ms]
    if slow:
        raise GateMissed(f"slower than {max_ms:g} ms: {', '.join(slow)}")


def _save(document: dict[str, Any], folder: Path) -> None:
    """Write the results into a file of their own, named by the time."""
    from datetime import datetime, timezone

    from edgenet.appearing import appearing

    path = folder / f"bench-{datetime.now(timezone.utc):%Y%m%dT%H%M%S%f}Z.json"
    with appearing(path) as partial:
        partial.write_text(json_text(document), encoding="utf-8", errors="backslashreplace")


def _named(row: Row, names: Mapping[Path, str]) -> str:
    one = row.latency
    return f"{names[one.path]} {one.median_ms:.3f} ms ({one.threads} thread{'s' * (one.threads > 1)} on {one.device})"
