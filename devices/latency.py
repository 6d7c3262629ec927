"""The measuring protocol on this machine, and its statistics.

Each repetition opens every file anew, in a random order: what drifts (temperature, neighbours) then meets all files
alike, and the ratio of two files can be trusted where neither time alone can. Source: Google Benchmark's random
interleaving; MLPerf Mobile for the percentiles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.machine import MachineState, machine_state
from devices.model_file import check_model_file, sha256
from devices.model_process import ModelProcess
from devices.runtime import ModelInfo
from devices.timing import Run, Schedule

_RESAMPLES = 2000

Progress = Callable[[int, int, str], None]  # (done, of how many, what is next)


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one file on this machine. All samples, in order; nothing dropped.

    median_ms is the median of the repetitions' medians, ci95_ms its bootstrap interval (None for one repetition);
    the percentiles, mad_ms (median absolute deviation) and cv (deviation / mean) are over all samples.
    """

    path: Path
    sha256: str
    file_bytes: int
    threads: int
    runtime: str
    delegate: str
    delegate_note: str
    ops: int | None
    delegated_ops: int | None
    samples_ns: NDArray[np.int64]  # [runs], repetition after repetition
    repetition_runs: tuple[int, ...]  # how many of them each repetition made
    cold_starts_ms: tuple[float, ...]  # a repetition each: load + first inference, the file in the page cache
    cold_start_ms: float  # their median
    median_ms: float
    ci95_ms: tuple[float, float] | None
    p90_ms: float
    p99_ms: float
    mad_ms: float
    cv: float
    peak_rss_bytes: int  # of the process that held it, Python and numpy (about 30 MB) included
    before: MachineState
    after: MachineState


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster one file is than another, with a bootstrap 95 % interval over the repetitions."""

    value: float
    low: float
    high: float


def measure(
    paths: Sequence[str | os.PathLike[str]],
    threads: Sequence[int] = (1,),
    schedule: Schedule | None = None,
    seed: int = 0,
    timeout_s: float = 60.0,
    progress: Progress | None = None,
) -> list[Latency]:
    """Time every file with every number of threads, interleaved; results by file, then by threads.

    schedule: durations and repetitions (the default takes about 8 s a file and number of threads). seed: of the order
    and the bootstrap. Raises what ModelProcess raises, before the first timing where a file is plainly no model.
    """
    schedule = schedule or Schedule()
    cases = [(check_model_file(path), count) for path in paths for count in threads]
    rng = np.random.default_rng(seed)
    order = [int(case) for _ in range(schedule.repetitions) for case in rng.permutation(len(cases))]
    runs: list[list[Run]] = [[] for _ in cases]
    infos: dict[int, ModelInfo] = {}
    before = machine_state()
    for done, case in enumerate(order):
        path, count = cases[case]
        if progress:
            progress(done, len(order), f"{path.name}, {count} thread{'s' * (count > 1)}")
        with ModelProcess(path, count, timeout_s) as process:
            runs[case].append(process.measure(schedule))
            infos[case] = process.info
    after = machine_state()
    if progress:
        progress(len(order), len(order), "")
    return [
        _latency(path, count, infos[case], runs[case], (before, after), seed)
        for case, (path, count) in enumerate(cases)
    ]


def speedup(slow: Latency, fast: Latency, seed: int = 0) -> Ratio:
    """Compare two files of one `measure` call: median of the per-repetition ratios slow / fast.

    Repetitions are paired, since both files were timed in each. Raises ValueError for results of different calls.
    """
    ours, theirs = repetition_medians_ms(slow), repetition_medians_ms(fast)
    if len(ours) != len(theirs) or slow.before != fast.before:
        raise ValueError("only files timed by the same measure() call can be compared")
    ratios = ours / theirs
    low, high = bootstrap_ci95(ratios, seed)
    return Ratio(float(np.median(ratios)), low, high)


def repetition_medians_ms(latency: Latency) -> NDArray[np.float64]:
    """Median of each repetition, in ms: float64 [repetitions]."""
    ends = np.cumsum(latency.repetition_runs)[:-1]
    return np.array([np.median(part) for part in np.split(latency.samples_ns, ends)]) / 1e6


def bootstrap_ci95(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Give the 95 % percentile-bootstrap interval of the median of values [n]."""
    rng = np.random.default_rng(seed)
    medians = np.median(values[rng.integers(0, len(values), (_RESAMPLES, len(values)))], axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def _latency(
    path: Path,
    threads: int,
    info: ModelInfo,
    runs: Sequence[Run],
    states: tuple[MachineState, MachineState],
    seed: int,
) -> Latency:
    samples = np.concatenate([run.samples_ns for run in runs])
    medians = np.array([np.median(run.samples_ns) for run in runs]) / 1e6
    p50, p90, p99 = (float(value) / 1e6 for value in np.percentile(samples, (50, 90, 99)))
    cold = tuple(run.load_ms + run.first_ms for run in runs)
    return Latency(
        path=path,
        sha256=sha256(path),
        file_bytes=info.file_bytes,
        threads=threads,
        runtime=info.runtime,
        delegate=info.delegate,
        delegate_note=info.delegate_note,
        ops=info.ops,
        delegated_ops=info.delegated_ops,
        samples_ns=samples,
        repetition_runs=tuple(len(run.samples_ns) for run in runs),
        cold_starts_ms=cold,
        cold_start_ms=float(np.median(cold)),
        median_ms=float(np.median(medians)),
        ci95_ms=bootstrap_ci95(medians, seed) if len(runs) > 1 else None,
        p90_ms=p90,
        p99_ms=p99,
        mad_ms=float(np.median(np.abs(samples / 1e6 - p50))),
        cv=float(samples.std() / samples.mean()),
        peak_rss_bytes=max(run.peak_rss_bytes for run in runs),
        before=states[0],
        after=states[1],
    )
