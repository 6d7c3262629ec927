"""What would lose less than --max-drop allows, in one sentence: simulated before it is said."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from edgenet.int8.island_latency import IslandLatency
from edgenet.int8.search import corrected
from edgenet.int8.trial import Images, drop_points, judged
from edgenet.order import Demand
from edgenet.progress import Progress

if TYPE_CHECKING:
    from edgenet.int8.search import Found

MOST = 10
"""Islands that are tried."""

FLOAT16 = "edgenet convert --precision float16 (twice the size, and float's answers)"


def advise(
    found: Found | None, images: np.ndarray, training: np.ndarray, on: Images, demand: Demand, progress: Progress
) -> str:
    """Say what would lose no more top-1 than is allowed.

    Args:
        found: what the search found; None where there was none, or no int8.
        images: calibration images, uint8 [n, height, width, 3].
        training: those of them to correct by.
        on: the labelled images, with the float network's answers.
        demand: what the user wants.
        progress: called with the step.
    """
    if found is None:
        return f"try --effort fast, or {FLOAT16}" if demand.effort == "plain" else f"try {FLOAT16}"
    more = "--effort best, or " if demand.effort == "fast" else ""
    named = _layers_in_float(found, images, training, on, demand, progress)
    return named or f"try {more}{FLOAT16}; no {MOST} tensors in float reach it"


def _layers_in_float(
    found: Found, images: np.ndarray, training: np.ndarray, on: Images, demand: Demand, progress: Progress
) -> str:
    """Find layers whose names, given to --keep-float, would reach it: the costliest tensors' first; "" for none."""
    from converters.int8 import islands
    from converters.int8.costs import noise_alone

    prepared, simulator = found.prepared, found.prepared.simulator
    wanted = found.state.kept_float
    tried: set[tuple[str, ...]] = set()
    what = "look for what would lose less"
    noise = noise_alone(simulator, found.base, images, functools.partial(progress, f"{what}: what each tensor costs"))
    for i, island in enumerate(islands.smallest(simulator, noise, MOST)):
        wanted |= island.nodes
        names = islands.names(simulator, wanted)
        if not names or names in tried:
            continue
        tried.add(names)
        progress(f"{what}: simulate", i, MOST)
        kept = islands.of_layers(simulator, names)  # what the user's own words will keep
        simulator.load(corrected(found, dataclasses.replace(found.base, kept_float=kept), training))
        answer = judged("float", "simulator", on, simulator.scores)
        drop = drop_points(on.float_top1, answer.top1)
        if drop is None or demand.max_drop is None or drop > demand.max_drop:
            continue
        whole, cost = IslandLatency(prepared, found.base, images, progress)([frozenset(), kept], openings=3)
        if math.isinf(cost):
            continue
        options = " ".join(f"--keep-float {name}" for name in names)
        return f"{options} would reach it ({drop:.1f} points in the simulator, {cost / whole:.2f}x the latency)"
    return ""
