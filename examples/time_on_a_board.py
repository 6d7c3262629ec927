"""Time model files on a device, and print what a program would decide by.

python examples/time_on_a_board.py DEVICE FILE...     DEVICE: local, pi@raspberrypi.local, android:SERIAL
"""

from __future__ import annotations

import sys
from pathlib import Path

import edgenet
from devices import registry
from devices.bench import open_bench


def main(device: str, files: list[Path]) -> None:
    with open_bench(registry.find(device), native=True, wait_s=600) as bench:  # another edgenet may hold the device
        schedule = edgenet.Schedule(repetitions=3)
        rows = edgenet.benchmark(files, (1,), schedule, lambda *_: None, bench=bench)
    for row in rows:
        one = row.latency
        print(f"{one.path.name} on {one.device}: {one.median_ms:.2f} ms, p99 {one.p99_ms:.2f} ms, {one.verdict}")
        if row.gain:
            print(f"  {row.gain.ratio.value:.2f}x its float sibling {row.gain.why}".rstrip())


if __name__ == "__main__":
    main(sys.argv[1], [Path(name) for name in sys.argv[2:]])
