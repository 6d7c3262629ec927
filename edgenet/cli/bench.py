"""edgenet bench: how fast model files run on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import Progress, show, show_json, verb, warn


@verb
def bench(
    files: options.Files,
    threads: Annotated[str, typer.Option(help="Numbers of threads, such as 1,2.")] = "1",
    repetitions: Annotated[int, typer.Option(help="Fresh starts of each file, interleaved.", min=1)] = 5,
    max_ms: Annotated[float | None, typer.Option(help="Exit 3 if a file's median is above this.", min=0)] = None,
    json: options.Json = False,
) -> None:
    """Measure latency on this machine: median with its interval, p90, cold start, memory."""
    import dataclasses

    from devices.timing import Schedule
    from edgenet import prove, report
    from edgenet.errors import GateMissed

    schedule = dataclasses.replace(Schedule(), repetitions=repetitions)
    with Progress() as progress:
        results = prove.benchmark(files, options.numbers(threads, "--threads"), schedule, progress)
    if json:
        show_json([report.latency_json(one) for one in results])
    else:
        show(report.latency_table(results))
    for one in results:
        if one.delegate_note:
            warn(f"{one.path.name}: {one.delegate_note}")
    limit = float("inf") if max_ms is None else max_ms
    slow = [
        f"{one.path.name} {one.median_ms:.2f} ms ({one.threads} threads)" for one in results if one.median_ms > limit
    ]
    if slow:
        raise GateMissed(f"slower than {max_ms:g} ms: {', '.join(slow)}")
