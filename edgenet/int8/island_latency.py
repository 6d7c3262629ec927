"""What islands of float cost: TFLite files of one network with some nodes in float, timed side by side."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgenet.int8.side_by_side import fastest_ms
from edgenet.progress import Progress

if TYPE_CHECKING:
    from converters.int8.prepare import Prepared
    from converters.int8.simulator import State


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
            openings: how often all files are opened anew.

        Returns:
            See fastest_ms.
        """
        flatbuffers = []
        for i, nodes in enumerate(kept):
            self._progress("measure islands of float: write", i, len(kept))
            flatbuffers.append(self._writer.tflite(dataclasses.replace(self._base, kept_float=nodes)).flatbuffer)
        return fastest_ms(flatbuffers, openings, functools.partial(self._progress, "measure islands of float"))
