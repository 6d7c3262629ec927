"""The clock around a bare inference, inside the child that holds the model."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from devices.runtimes.runtime import Session

if TYPE_CHECKING:
    from devices.device import DeviceState


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long each repetition warms up and measures.

    The defaults add up, over 5 repetitions, to at least 100 runs and 5 s a model, and at most 60 s. A warm-up of 1 s: a
    clock that follows the load has arrived by then.
    """

    warmup_s: float = 1.0
    warmup_runs: int = 5
    duration_s: float = 1.0
    min_runs: int = 20
    cap_s: float = 12.0  # a repetition ends here, however few its runs
    repetitions: int = 5


@dataclass(frozen=True, slots=True)
class Run:
    """One repetition: a fresh process opened the file, warmed up and measured."""

    samples_ns: NDArray[np.int64]  # [runs], in order, nothing dropped
    warmup_runs: int
    load_ms: float
    first_ms: float
    peak_rss_bytes: int  # of the whole process; Python's (about 30 MB) included where that held the model
    output_hash: str  # runtime.output_hash of the first output for runtime.example_input
    warm: DeviceState  # as the timed part began
    end: DeviceState  # as it ended


T = TypeVar("T")


def time_session(session: Session, schedule: Schedule, state: Callable[[], T]) -> tuple[NDArray[np.int64], int, T, T]:
    """Time bare inferences, the input already set: (samples in ns, warm-up runs, state before and after the samples).

    Ends when both schedule.duration_s and schedule.min_runs are reached, or at schedule.cap_s.
    """
    clock = time.perf_counter_ns
    invoke = session.invoke
    gc.disable()
    try:
        start = clock()
        warmed = 0
        while warmed < schedule.warmup_runs or clock() - start < schedule.warmup_s * 1e9:
            invoke()
            warmed += 1
            if clock() - start > schedule.cap_s * 1e9:
                break
        samples: list[int] = []
        warm = state()
        invoke()  # reading the state has cooled the caches
        warmed += 1
        start = clock()
        enough, cap = start + schedule.duration_s * 1e9, start + schedule.cap_s * 1e9
        while True:
            before = clock()
            invoke()
            after = clock()
            samples.append(after - before)
            if (after >= enough and len(samples) >= schedule.min_runs) or after >= cap:
                break
    finally:
        gc.enable()
    return np.array(samples, np.int64), warmed, warm, state()


def peak_rss_bytes() -> int:
    """Peak resident memory of this process.

    Linux: VmHWM. getrusage's ru_maxrss starts at the *parent's* peak there, as it survives exec.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
