"""What islands of float cost: TFLite files with some nodes in float, timed side by side on this machine."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from devices.latency import measure
from devices.timing import Schedule

if TYPE_CHECKING:
    from converters.int8.prepare import Prepared
    from converters.int8.simulator import State

Progress = Callable[[str, int, int], None]

FASTEST = 10
"""Percent of the samples that count: neighbours only ever add time."""


def latencies(
    prepared: Prepared,
    base: State,
    images: np.ndarray,
    kept: Sequence[frozenset[int]],
    repetitions: int,
    progress: Progress,
) -> list[float]:
    """Time a network's TFLite files at 1 thread, one for each set of nodes in float, interleaved.

    Args:
        prepared: the network.
        base: its weights and ranges.
        images: calibration images, uint8 [n, height, width, 3].
        kept: sets of nodes that compute in float; the first is what the others are held against.
        repetitions: fresh starts of each file.
        progress: called with the step.

    Returns:
        Milliseconds of the fastest tenth; infinite where more operators than in the first file are outside the
        delegate, or where the runtime does not tell how many are.
    """
    from converters.int8 import prepare

    with tempfile.TemporaryDirectory() as folder:
        files = []
        writer = prepare.Writer(prepared, base, images)
        for i, nodes in enumerate(kept):
            progress("measure islands of float: write", i, len(kept))
            files.append(Path(folder) / f"{i}.tflite")
            files[-1].write_bytes(writer.tflite(dataclasses.replace(base, kept_float=nodes)).flatbuffer)
        progress("measure islands of float", 0, 0)
        results = measure(files, (1,), Schedule(warmup_s=0.05, duration_s=0.05, min_runs=30, repetitions=repetitions))
    outside = [
        math.inf if one.ops is None or one.delegated_ops is None else one.ops - one.delegated_ops for one in results
    ]
    fastest = [float(np.percentile(one.samples_ns, FASTEST)) / 1e6 for one in results]
    return fastest[:1] + [
        ms if left <= outside[0] and math.isfinite(left) else math.inf
        for ms, left in zip(fastest[1:], outside[1:], strict=True)
    ]
