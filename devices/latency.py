"""The measuring protocol: the same on this machine, over ssh and over adb.

Each repetition opens every file anew, in a random order: what drifts (temperature, neighbours) then meets all files
alike, and the ratio of two files can be trusted where neither time alone can. A repetition during which the device
throttled is measured again, and never averaged in. Source: Google Benchmark's random interleaving; MLPerf Mobile for
the percentiles and for cooling down.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from devices.bench import Bench, Facts, PythonBench, Timed
from devices.device import THROTTLED, DeviceState
from devices.errors import DeviceLost, DeviceUnreachable
from devices.model_file import check_model_file, sha256
from devices.profile import CoolDown
from devices.statistics import Ratio, bootstrap_ci95, paired_ratio
from devices.timing import Run, Schedule

RETRIES = 2
"""Of a repetition during which the device throttled."""

COOL_DOWN = CoolDown(above_idle_c=5.0, max_s=300.0)
"""Before each repetition, for a device without a profile; max_s: in all."""

RETURN_S, TRY_EVERY_S = 90.0, 2.0
"""How long a device that was lost may take to start anew, and how often it is tried."""

UNSTABLE = 0.02
"""Half the interval's width, as a share of the median, beyond which the device is called unstable."""

CLOCK_DRIFT = 0.1
"""Change of the clock during a repetition, as a share, that makes it invalid."""

BY_ITSELF = ("pstate", "intel_cpufreq")
"""Clock drivers of processors that change the clock all the time by themselves; it then says nothing."""

Verdict = Literal["valid", "throttled", "unstable"]
Progress = Callable[[int, int, str], None]  # (done, of how many, what is next)


@dataclass(frozen=True, slots=True)
class Repetition:
    """One fresh start of a file.

    Attributes:
        round: which of the interleaved rounds, from 0.
        run: every sample, and the device's state around them.
        fault: why it does not count, "" where it does.
        after_gap: the device was lost before it, and came back.
    """

    round: int
    run: Run
    fault: str
    after_gap: bool


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one file on one device. All samples, in order; nothing dropped.

    median_ms is the median of the repetitions' medians, ci95_ms its bootstrap interval (None for one repetition);
    the percentiles, mad_ms (median absolute deviation) and cv (deviation / mean) are over all samples that count.
    Where no repetition counts, the figures are those of the invalid ones, and the verdict says so.
    """

    device: str
    call: str  # the same for files that one call timed in turns
    path: Path
    sha256: str
    file_bytes: int
    threads: int
    runtime: str
    delegate: str
    delegate_note: str
    ops: int | None
    delegated_ops: int | None
    repetitions: tuple[Repetition, ...]  # those that do not count, too
    cold_start_ms: float  # median of load + first inference, the file in the page cache
    median_ms: float
    ci95_ms: tuple[float, float] | None
    p90_ms: float
    p99_ms: float
    mad_ms: float
    cv: float
    peak_rss_bytes: int  # of the process that held it; Python's and numpy's (about 30 MB) included where they did
    output_hash: str
    verdict: Verdict
    why: str  # of the verdict; "" where valid
    before: DeviceState
    after: DeviceState

    @property
    def counted(self) -> tuple[Repetition, ...]:
        """The repetitions that the figures are from."""
        return tuple(one for one in self.repetitions if not one.fault) or self.repetitions

    @property
    def samples_ns(self) -> NDArray[np.int64]:
        """Samples that count, int64 [runs], repetition after repetition."""
        return np.concatenate([one.run.samples_ns for one in self.counted])

    @property
    def medians_ms(self) -> NDArray[np.float64]:
        """Median of each repetition that counts, float64 [repetitions]."""
        return np.array([np.median(one.run.samples_ns) for one in self.counted]) / 1e6


def measure(
    paths: Sequence[str | os.PathLike[str]],
    threads: Sequence[int] = (1,),
    schedule: Schedule | None = None,
    *,
    bench: Bench | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    keep: Callable[[Path, int, Repetition], None] = lambda *_: None,
) -> list[Latency]:
    """Time every file with every number of threads, interleaved; results by file, then by threads.

    schedule: durations and repetitions (the default takes about 8 s a file and number of threads). bench: the device;
    None: this machine, through Python. seed: of the order and the bootstrap. keep: told of each repetition as it ends.
    Raises what the bench raises, and ModelUnreadable before the first timing where a file is plainly no model.
    """
    schedule = schedule or Schedule()
    bench = bench or PythonBench()
    cases = [(check_model_file(path), count) for path in paths for count in threads]
    rng = np.random.default_rng(seed)
    order = [(turn, int(case)) for turn in range(schedule.repetitions) for case in rng.permutation(len(cases))]
    tell = progress or (lambda *_: None)
    repetitions: list[list[Repetition]] = [[] for _ in cases]
    facts: dict[int, Facts] = {}
    before = bench.state()
    patience = _Patience(before.temperature_c, bench.board.cool_down if bench.board else COOL_DOWN)
    for done, (turn, case) in enumerate(order):
        path, count = cases[case]
        what = f"{path.name}, {count} thread{'s' * (count > 1)}"
        say = functools.partial(tell, done, len(order))
        for _ in range(1 + RETRIES):
            patience.cool(bench, say)
            say(what)
            timed = _timed(bench, path, count, schedule, say)
            facts[case] = timed.facts
            repetitions[case].append(Repetition(turn, timed.run, fault(timed.run), timed.after_gap))
            keep(path, count, repetitions[case][-1])
            if not repetitions[case][-1].fault:
                break
    after = bench.state()
    tell(len(order), len(order), "")
    call = secrets.token_hex(8)
    return [
        _latency(bench.device, call, case, facts[i], tuple(repetitions[i]), (before, after), seed)
        for i, case in enumerate(cases)
    ]


def fault(run: Run) -> str:
    """Say why a repetition does not count; "" where it does."""
    bits = (run.warm.throttled or 0) | (run.end.throttled or 0)
    said = [words for bit, words in THROTTLED.items() if bits & bit]
    if said:
        return ", ".join(said)
    first, last, driver = run.warm.frequency_khz, run.end.frequency_khz, run.end.clock_driver or ""
    if first and last and not any(name in driver for name in BY_ITSELF) and abs(last / first - 1) > CLOCK_DRIFT:
        return f"its clock went from {first / 1e3:.0f} to {last / 1e3:.0f} MHz"
    return ""


def speedup(slow: Latency, fast: Latency, seed: int = 0) -> Ratio:
    """Compare two files of one `measure` call: median of the per-repetition ratios slow / fast.

    Repetitions are paired, since both files were timed in each; a round that only one of them has is left out. Raises
    ValueError for results of different calls.
    """
    if slow.call != fast.call:
        raise ValueError("only files timed by the same measure() call can be compared")
    ours = {one.round: float(np.median(one.run.samples_ns)) for one in slow.counted}
    theirs = {one.round: float(np.median(one.run.samples_ns)) for one in fast.counted}
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise ValueError("the two files have no valid repetition in common")
    return paired_ratio(np.array([ours[turn] for turn in both]), np.array([theirs[turn] for turn in both]), seed)


class _Patience:
    """How long a call has waited for its device to cool down."""

    def __init__(self, idle_c: float | None, rule: CoolDown) -> None:
        self._idle_c = idle_c
        self._above_c, self._left_s = rule.above_idle_c, rule.max_s

    def cool(self, bench: Bench, tell: Callable[[str], None]) -> None:
        if self._idle_c is None:
            return
        while self._left_s > 0:
            now_c = bench.state().temperature_c
            if now_c is None or now_c <= self._idle_c + self._above_c:
                return
            tell(f"cool down: {now_c:.0f} °C, idle was {self._idle_c:.0f} °C")
            time.sleep(2)
            self._left_s -= 2


def _timed(bench: Bench, path: Path, threads: int, schedule: Schedule, tell: Callable[[str], None]) -> Timed:
    """Time one repetition; a device that was lost gets one chance to come back, and the time to start anew."""
    try:
        return bench.time(path, threads, schedule)
    except DeviceLost:
        tell(f"{bench.device} was lost: wait for it")
    for _ in range(int(RETURN_S / TRY_EVERY_S)):
        try:
            return dataclasses.replace(bench.time(path, threads, schedule), after_gap=True)
        except DeviceUnreachable:
            time.sleep(TRY_EVERY_S)
    return dataclasses.replace(bench.time(path, threads, schedule), after_gap=True)


def _latency(
    device: str,
    call: str,
    case: tuple[Path, int],
    facts: Facts,
    repetitions: tuple[Repetition, ...],
    states: tuple[DeviceState, DeviceState],
    seed: int,
) -> Latency:
    path, threads = case
    counted = [one.run for one in repetitions if not one.fault] or [one.run for one in repetitions]
    samples = np.concatenate([run.samples_ns for run in counted])
    medians = np.array([np.median(run.samples_ns) for run in counted]) / 1e6
    p50, p90, p99 = (float(value) / 1e6 for value in np.percentile(samples, (50, 90, 99)))
    ci95 = bootstrap_ci95(medians, seed) if len(counted) > 1 else None
    verdict, why = _verdict(repetitions, float(np.median(medians)), ci95)
    return Latency(
        device=device,
        call=call,
        path=path,
        sha256=sha256(path),
        file_bytes=path.stat().st_size,
        threads=threads,
        runtime=facts.runtime,
        delegate=facts.delegate,
        delegate_note=facts.delegate_note,
        ops=facts.ops,
        delegated_ops=facts.delegated_ops,
        repetitions=repetitions,
        cold_start_ms=float(np.median([run.load_ms + run.first_ms for run in counted])),
        median_ms=float(np.median(medians)),
        ci95_ms=ci95,
        p90_ms=p90,
        p99_ms=p99,
        mad_ms=float(np.median(np.abs(samples / 1e6 - p50))),
        cv=float(samples.std() / samples.mean()),
        peak_rss_bytes=max(run.peak_rss_bytes for run in counted),
        output_hash=counted[0].output_hash,
        verdict=verdict,
        why=why,
        before=states[0],
        after=states[1],
    )


def _verdict(
    repetitions: Sequence[Repetition], median_ms: float, ci95_ms: tuple[float, float] | None
) -> tuple[Verdict, str]:
    rounds = {one.round for one in repetitions}
    lost = rounds - {one.round for one in repetitions if not one.fault}
    if lost:
        reasons = sorted({one.fault for one in repetitions if one.round in lost})
        return "throttled", f"{len(lost)} of {len(rounds)} repetitions, each tried {1 + RETRIES} times: {reasons[0]}"
    hashes = {one.run.output_hash for one in repetitions}
    if len(hashes) > 1:
        return "unstable", "it answers differently from run to run"
    if ci95_ms is not None and (ci95_ms[1] - ci95_ms[0]) / 2 > UNSTABLE * median_ms:
        half = 100 * (ci95_ms[1] - ci95_ms[0]) / 2 / median_ms
        return "unstable", f"the median is only known to +-{half:.0f} %: end what else runs, or more --repetitions"
    return "valid", ""
