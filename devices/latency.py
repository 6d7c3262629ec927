"""The measuring protocol: the same on this machine, over ssh and over adb.

Each repetition opens every file anew, in a random order: what drifts (temperature, neighbours) then meets all files
alike, and the ratio of two files can be trusted where neither time alone can. A repetition during which the device
throttled is measured again, and never averaged in. Source: Google Benchmark's random interleaving; MLPerf Mobile for
the percentiles and for cooling down.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from devices.bench import Bench, Facts, PythonBench
from devices.device import DeviceState
from devices.errors import DeviceError, ModelCrashed, ModelTimeout, ModelUnreadable, RuntimeMissing
from devices.patience import Patience
from devices.repetition import Repetition, fault
from devices.runtimes.model_file import check_model_file, sha256
from devices.runtimes.timing import Schedule
from devices.statistics import Ratio, bootstrap_ci95, outliers, paired_ratio

__all__ = ["Latency", "Repetition", "measure", "speedup"]

RETRIES = 2
"""Of a repetition during which the device throttled."""

UNSTABLE = 0.02
"""Half the interval's width, as a share of the median, beyond which the device is called unstable."""

_OF_THE_FILE = (RuntimeMissing, ModelUnreadable, ModelCrashed, ModelTimeout)  # and not of the device

Verdict = Literal["valid", "throttled", "unstable"]
Progress = Callable[[int, int, str], None]  # (done, of how many, what is next)
Tell = Callable[[str], None]
Keep = Callable[[Path, int, Repetition], None]
Failed = Callable[[Path, int, DeviceError], None]


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
    outliers: (
        int  # of the samples that count, far from the rest of their repetition (statistics.outliers); none dropped
    )
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


@dataclass(slots=True)
class _Case:
    """A file with a number of threads, and what became of it so far."""

    path: Path
    threads: int
    sha256: str
    file_bytes: int
    repetitions: list[Repetition] = field(default_factory=list)
    facts: Facts | None = None
    failed: bool = False

    @property
    def name(self) -> str:
        return f"{self.path.name}, {self.threads} thread{'s' * (self.threads > 1)}"


def measure(
    paths: Sequence[str | os.PathLike[str]],
    threads: Sequence[int] = (1,),
    schedule: Schedule | None = None,
    *,
    bench: Bench | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    keep: Keep = lambda *_: None,
    failed: Failed | None = None,
) -> list[Latency]:
    """Time every file with every number of threads, interleaved; results by file, then by threads.

    schedule: durations and repetitions (the default takes about 10 s a file and number of threads). bench: the device;
    None: this machine, through Python. seed: of the order and the bootstrap. keep: told of each repetition as it ends.
    failed: told of a file that a runtime cannot run, or that changed, which then has no result; else that is raised.
    Raises what the bench raises, and ModelUnreadable before the first timing where a file is plainly no model.
    """
    schedule = schedule or Schedule()
    if schedule.repetitions < 1 or any(count < 1 for count in threads):
        raise DeviceError("a measurement takes 1 repetition and 1 thread at least")
    bench = bench or PythonBench()
    cases = _cases(paths, threads)
    rng = np.random.default_rng(seed)
    order = [(turn, cases[i]) for turn in range(schedule.repetitions) for i in rng.permutation(len(cases))]
    tell = progress or (lambda *_: None)
    before = bench.state()  # unguarded: a device that is not there when a call begins is not waited for
    patience = Patience(bench, before.temperature_c)
    for done, (turn, case) in enumerate(order):
        if case.failed:
            continue
        try:
            _repeat(bench, case, turn, schedule, patience, functools.partial(tell, done, len(order)), keep)
        except _OF_THE_FILE as exc:
            if failed is None:
                raise
            case.failed = True
            failed(case.path, case.threads, exc)
    after = _state_after(bench, patience, order, functools.partial(tell, len(order), len(order)))
    tell(len(order), len(order), "")
    call = secrets.token_hex(8)
    return [_latency(bench.device, call, case, (before, after or before), seed) for case in cases if not case.failed]


def _cases(paths: Sequence[str | os.PathLike[str]], threads: Sequence[int]) -> list[_Case]:
    """Look at the files before anything is timed: hours later they may be gone, or others."""
    files = [check_model_file(path) for path in paths]
    known = {path: (sha256(path), path.stat().st_size) for path in files}
    return [_Case(path, int(count), *known[path]) for path in files for count in threads]


def _repeat(
    bench: Bench, case: _Case, turn: int, schedule: Schedule, patience: Patience, tell: Tell, keep: Keep
) -> None:
    """Time one repetition; one during which the device throttled is tried again."""
    for _ in range(1 + RETRIES):
        hot = not patience.cool(tell)
        tell(case.name)
        timed = patience.ask(lambda: bench.time(case.path, case.threads, schedule), tell)
        _require_same(case)
        case.facts = timed.facts
        case.repetitions.append(Repetition(turn, timed.run, fault(timed.run), timed.after_gap or patience.gap, hot))
        patience.gap = False
        keep(case.path, case.threads, case.repetitions[-1])
        if not case.repetitions[-1].fault:
            return


def _require_same(case: _Case) -> None:
    """Refuse a file that is another one by now; one that is gone was timed all the same."""
    with contextlib.suppress(OSError):
        if sha256(case.path) != case.sha256:
            raise ModelUnreadable(f"{case.path} was changed while it was being timed: time it again")


def _state_after(
    bench: Bench, patience: Patience, order: Sequence[tuple[int, _Case]], tell: Tell
) -> DeviceState | None:
    """Read the state at the end; where the device does not give it any more, the one its last repetition ended in."""
    try:
        return patience.ask(bench.state, tell)
    except DeviceError:
        timed = ((turn, case.repetitions[-1]) for turn, case in reversed(order) if case.repetitions)
        return next((last.run.end for turn, last in timed if last.round == turn), None)


def speedup(slow: Latency, fast: Latency, seed: int = 0) -> Ratio:
    """Compare two files of one `measure` call: median of the per-repetition ratios slow / fast.

    Repetitions without a fault are paired, since both files were timed in each round; a round that only one of them has
    is left out. Raises ValueError for results of different calls, and where no such round is left.
    """
    if slow.call != fast.call:
        raise ValueError("only files timed by the same measure() call can be compared")
    ours, theirs = _medians_by_round(slow), _medians_by_round(fast)
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise ValueError("the two files have no valid repetition in common")
    return paired_ratio(np.array([ours[turn] for turn in both]), np.array([theirs[turn] for turn in both]), seed)


def _medians_by_round(one: Latency) -> dict[int, float]:
    return {each.round: float(np.median(each.run.samples_ns)) for each in one.repetitions if not each.fault}


def _latency(device: str, call: str, case: _Case, states: tuple[DeviceState, DeviceState], seed: int) -> Latency:
    assert case.facts is not None
    counted = [one.run for one in case.repetitions if not one.fault] or [one.run for one in case.repetitions]
    samples = np.concatenate([run.samples_ns for run in counted])
    medians = np.array([np.median(run.samples_ns) for run in counted]) / 1e6
    p50, p90, p99 = (float(value) / 1e6 for value in np.percentile(samples, (50, 90, 99)))
    ci95 = bootstrap_ci95(medians, seed) if len(counted) > 1 else None
    verdict, why = _verdict(case.repetitions, float(np.median(medians)), ci95)
    return Latency(
        device=device,
        call=call,
        path=case.path,
        sha256=case.sha256,
        file_bytes=case.file_bytes,
        threads=case.threads,
        runtime=case.facts.runtime,
        delegate=case.facts.delegate,
        delegate_note=case.facts.delegate_note,
        ops=case.facts.ops,
        delegated_ops=case.facts.delegated_ops,
        repetitions=tuple(case.repetitions),
        cold_start_ms=float(np.median([run.load_ms + run.first_ms for run in counted])),
        median_ms=float(np.median(medians)),
        ci95_ms=ci95,
        p90_ms=p90,
        p99_ms=p99,
        mad_ms=float(np.median(np.abs(samples / 1e6 - p50))),
        cv=float(samples.std() / samples.mean()),
        outliers=sum(outliers(run.samples_ns) for run in counted),
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
        cure = "end what else runs, or give edgenet bench more --repetitions"
        return "unstable", f"the median is only known to +-{half:.0f} %: {cure}"
    return "valid", ""
