"""TFLite files timed side by side on this machine, so that a few percent between them show."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from devices.runtimes.model_process import ModelProcess
from devices.runtimes.timing import Schedule

TURN = Schedule(warmup_s=0.02, warmup_runs=5, duration_s=0.05, min_runs=20)
FASTEST = 10
"""Percent of the samples that count: neighbours only ever add time."""


def fastest_ms(flatbuffers: Sequence[bytes], openings: int, progress: Callable[[int, int], None]) -> list[float]:
    """Return the milliseconds of the fastest tenth of each TFLite file's inferences, at 1 thread.

    Args:
        flatbuffers: the files; the first is what the others are held against.
        openings: how often all files are opened anew and timed in turn: where its memory lies moves a file's latency by
            a percent or two, and now and then by fifteen; a neighbour meets all alike.
        progress: called with the number of openings done, and of all.

    Returns:
        Infinite where more operators than in the first file are outside the delegate, or where the runtime does not
        tell how many are.
    """
    samples: list[list[np.ndarray]] = [[] for _ in flatbuffers]
    outside = [math.inf] * len(flatbuffers)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.tflite" for i in range(len(flatbuffers))]
        for file, flatbuffer in zip(files, flatbuffers, strict=True):
            file.write_bytes(flatbuffer)
        for opening in range(openings):
            progress(opening, openings)
            with contextlib.ExitStack() as held:
                processes = []
                for file in files:  # all start at once
                    processes.append(ModelProcess(file))
                    held.callback(processes[-1].close)
                outside = [_outside(process) for process in processes]
                for process, own in zip(processes, samples, strict=True):
                    own.append(process.measure(TURN).samples_ns)
    fastest = [float(np.percentile(np.concatenate(own), FASTEST)) / 1e6 for own in samples]
    stays = [left <= outside[0] and math.isfinite(left) for left in outside]
    return fastest[:1] + [ms if inside else math.inf for ms, inside in zip(fastest[1:], stays[1:], strict=True)]


def _outside(process: ModelProcess) -> float:
    info = process.info
    return math.inf if info.ops is None or info.delegated_ops is None else info.ops - info.delegated_ops
