"""Do the native runner, the Python runtime and LiteRT's own litert-benchmark print the same median for the same file?

Each round starts a fresh process of each, in a random order, so that what drifts meets all three alike; a ratio is the
median of the rounds' ratios, with a bootstrap 95 % interval. litert-benchmark comes with ai-edge-litert (2.2 or newer)
and rounds its median to 0.01 ms: give it a file that takes a millisecond or more.

python benchmarks/fidelity.py MODEL.tflite [MODEL.onnx ...] [--rounds 15] [--seconds 1] [--threads 1] [--peer PYTHON]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from devices.native.runner import ENGINES, local_place, native_measure
from devices.runtimes.model_process import ModelProcess
from devices.runtimes.timing import Schedule
from devices.shells.local import LocalShell
from devices.statistics import paired_ratio

GOAL = 0.03
PEER = "ai_edge_litert.tools.benchmark_litert_model"

Timer = Callable[[], float]  # median of one repetition, ms


def native_timer(path: Path, threads: int, schedule: Schedule) -> Timer:
    """Time a file with the shipped runner."""
    shell, place = LocalShell(), local_place()

    def once() -> float:
        run = native_measure(shell, place, str(path), ENGINES[path.suffix], threads, schedule).run
        return float(np.median(run.samples_ns)) / 1e6

    return once


def python_timer(path: Path, threads: int, schedule: Schedule) -> Timer:
    """Time a file with the Python runtime, as `edgenet bench` does here."""

    def once() -> float:
        with ModelProcess(path, threads) as process:
            return float(np.median(process.measure(schedule).samples_ns)) / 1e6

    return once


def peer_timer(path: Path, threads: int, schedule: Schedule, python: str, about_ms: float) -> Timer:
    """Time a file with litert-benchmark, which counts its runs: as many as our schedule makes."""
    runs = max(schedule.min_runs, round(schedule.duration_s * 1e3 / about_ms))
    warmup = max(schedule.warmup_runs, round(schedule.warmup_s * 1e3 / about_ms))

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            command = [python, "-m", PEER, f"--model={path}", f"--num_threads={threads}", f"--num_runs={runs}"]
            command += [f"--warmup_runs={warmup}", f"--result_json={result}"]
            subprocess.run(command, check=True, capture_output=True)
            return float(json.loads(result.read_text())["latency"]["median_ms"])

    return once


def has_peer(python: str) -> bool:
    """Say whether a Python has litert-benchmark."""
    try:
        return subprocess.run([python, "-m", PEER, "--help"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def compare(path: Path, threads: int, rounds: int, schedule: Schedule, peer: str, seed: int) -> bool:
    """Time a file in turns and print the ratios; True where the native runner's are within the goal."""
    timers = {"native": native_timer(path, threads, schedule), "python": python_timer(path, threads, schedule)}
    if path.suffix == ".tflite":
        timers["litert-benchmark"] = peer_timer(path, threads, schedule, peer, timers["native"]())
    rng = np.random.default_rng(seed)
    medians: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name in rng.permutation(list(timers)):
            medians[str(name)].append(timers[str(name)]())
    print(f"{path.name}, {threads} thread{'s' * (threads > 1)}, {rounds} rounds of {schedule.duration_s:g} s:")
    for name, values in medians.items():
        print(f"  {name:17} {np.median(values):8.4f} ms")
    good = True
    for other in list(medians)[1:]:
        ratio = paired_ratio(np.array(medians["native"]), np.array(medians[other]), seed)
        within = abs(ratio.value - 1) <= GOAL
        good &= within
        verdict = "ok" if within else f"off by more than {GOAL:.0%}"
        print(f"  native / {other:17} {ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]  {verdict}")
    return good


def main() -> int:
    """Compare each file; 1 if a ratio misses the goal, 2 where the peer is missing that it is to be held against."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", default=sys.executable, help="a Python whose ai-edge-litert has litert-benchmark")
    asked = parser.parse_args()
    if any(path.suffix == ".tflite" for path in asked.models) and not has_peer(asked.peer):
        why = f"{asked.peer} has no {PEER}: --peer names a Python with ai-edge-litert 2.2 or newer"
        print(f"fidelity.py: nothing to compare with: {why}", file=sys.stderr)
        return 2
    schedule = Schedule(warmup_s=0.5, duration_s=asked.seconds, repetitions=1)
    results = [
        compare(path.resolve(), asked.threads, asked.rounds, schedule, asked.peer, asked.seed) for path in asked.models
    ]
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
