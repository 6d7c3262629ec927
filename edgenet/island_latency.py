"""What islands of float cost: TFLite files with some nodes in float, timed side by side on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from devices.model_process import ModelProcess
from devices.timing import Schedule

if TYPE_CHECKING:
    from converters.int8.prepare import Prepared
    from converters.int8.simulator import State

Progress = Callable[[str, int, int], None]

TURN = Schedule(warmup_s=0.02, warmup_runs=5, duration_s=0.05, min_runs=20)
FASTEST = 10
"""Percent of the samples that count: neighbours only ever add time."""


class IslandLatency:
    """Times a network's TFLite files at 1 thread, with this or that in float; the network is traced once."""

    def __init__(self, prepared: Prepared, base: State, images: np.ndarray, progress: Progress) -> None:
        """Trace the network.

        Args:
            prepared: the network.
            base: its weights and ranges.
            images: calibration images, uint8 [n, height, width, 3].
            progress: called with the step.
        """
        from converters.int8 import prepare

        self._base, self._progress = base, progress
        self._writer = prepare.Writer(prepared, base, images)

    def __call__(self, kept: Sequence[frozenset[int]], openings: int) -> list[float]:
        """Return the milliseconds of the fastest tenth of the inferences, for each set of nodes in float.

        Args:
            kept: the sets; the first is what the others are held against.
            openings: how often all files are opened anew and timed in turn: where its memory lies moves a file's
                latency by a percent or two, and now and then by fifteen; a neighbour meets all alike.

        Returns:
            Infinite where more operators than in the first file are outside the delegate, or where the runtime does not
            tell how many are.
        """
        samples: list[list[np.ndarray]] = [[] for _ in kept]
        outside = [math.inf] * len(kept)
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{i}.tflite" for i in range(len(kept))]
            for i, (file, nodes) in enumerate(zip(files, kept, strict=True)):
                self._progress("measure islands of float: write", i, len(kept))
                file.write_bytes(self._writer.tflite(dataclasses.replace(self._base, kept_float=nodes)).flatbuffer)
            for opening in range(openings):
                self._progress("measure islands of float", opening, openings)
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
