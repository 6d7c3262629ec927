"""How far a number can be trusted: ten calls of `edgenet bench` on one device, and what a call costs beside measuring.

    python benchmarks/repeatability.py FILE [--device pi4] [--runner native|python] [--calls 10] [--repetitions 5]

Prints the median of each call and its verdict, how far the medians lie apart, and the seconds a call took outside of
timing files: connecting, the lock, probing, the device's state, the database. The first call may push; it is listed
apart. Goals: the medians of all calls that the tool called valid within +-2 %; one that lies elsewhere must have been
called unstable, or throttled, by the tool itself; under 1 s beside measuring. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from devices import bench, registry
from devices.latency import Latency, measure
from devices.runtimes.timing import Schedule
from devices.statistics import spread
from edgenet.results.recorder import Recorder

WITHIN = 0.02
OVERHEAD_S = 1.0


def apart(medians: Sequence[float], verdicts: Sequence[str]) -> float:
    """How far the medians of valid calls lie apart, +- as a share; 0 where fewer than two were valid."""
    valid = [median for median, verdict in zip(medians, verdicts, strict=True) if verdict == "valid"]
    return spread(valid) if valid else 0.0


def call(target: registry.Target, native: bool, path: Path, schedule: Schedule) -> tuple[Latency, float, int]:
    """Do what one `edgenet bench` does: (the latency, seconds beside measuring, bytes pushed)."""
    started = time.perf_counter()
    measured = 0.0
    with (
        Recorder("benchmarks/repeatability.py", warn=print) as recorder,
        bench.open_bench(target, native=native) as opened,
    ):
        timed = opened.time

        def clocked(*arguments: object) -> bench.Timed:
            nonlocal measured
            begun = time.perf_counter()
            try:
                return timed(*arguments)  # type: ignore[arg-type]
            finally:
                measured += time.perf_counter() - begun

        opened.time = clocked  # type: ignore[method-assign]
        keep = recorder.keeper(opened.device, target.kind, opened.runner, info=opened.info)
        (latency,) = measure([path], schedule=schedule, bench=opened, keep=keep)
        pushed = opened.pushed_bytes if isinstance(opened, bench.NativeBench) else 0
    return latency, time.perf_counter() - started - measured, pushed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="local")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--runner", choices=("native", "python"), default="native", help="on this machine")
    options = parser.parse_args()
    target = registry.find(options.device)
    schedule = replace(Schedule(), repetitions=options.repetitions)
    table = Table(title=f"{options.file.name} on {target.name}, {options.runner} runner")
    for column in ("call", "median ms", "interval", "verdict", "beside measuring, s", "pushed, bytes"):
        table.add_column(column, justify="right")
    medians, verdicts, beside = [], [], []
    for number in range(options.calls + 1):
        latency, seconds, pushed = call(target, options.runner == "native", options.file, schedule)
        low, high = latency.ci95_ms or (latency.median_ms, latency.median_ms)
        name = "first" if number == 0 else str(number)
        row = (name, f"{latency.median_ms:.4f}", f"{low:.4f} .. {high:.4f}", latency.verdict)
        table.add_row(*row, f"{seconds:.2f}", str(pushed))
        if number:
            medians.append(latency.median_ms)
            verdicts.append(latency.verdict)
            beside.append(seconds)
    Console().print(table)
    within, unstable = apart(medians, verdicts), sum(verdict != "valid" for verdict in verdicts)
    print(f"{unstable} of {len(verdicts)} calls not valid, and called so; all medians within +-{spread(medians):.1%}")
    print(f"medians of valid calls within +-{within:.1%}; goal: {WITHIN:.0%}")
    print(f"beside measuring: at most {max(beside):.2f} s; goal: {OVERHEAD_S:g} s")
    sys.exit(not (within <= WITHIN and max(beside) <= OVERHEAD_S))


if __name__ == "__main__":
    main()
