"""Islands of float whose measured latency is affordable, and that every runtime answers alike: the largest first."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgenet.int8.island_latency import IslandLatency
from edgenet.progress import Progress

if TYPE_CHECKING:
    from converters.int8.prepare import Prepared
    from converters.int8.simulator import State

POOR_DB = 20.0
"""Below it float may cost DEAR times the latency of the file without islands, above it CHEAP times."""

CHEAP, DEAR = 1.05, 1.08

FEW, MANY = 4, 10
"""Islands that are looked at, where float must be cheap, and where it may be dear."""

ALIKE_IMAGES = 96
"""To judge by whether islands answer alike in every runtime."""


@dataclass(frozen=True, slots=True)
class Affordable:
    """Islands that a network can afford together.

    Attributes:
        nodes: the operators that compute in float.
        names: of their layers.
        ratio: the latency with them, over that without.
        parted: share of images that they are foretold to make two runtimes name differently.
    """

    nodes: frozenset[int]
    names: tuple[str, ...]
    ratio: float
    parted: float


def affordable(
    prepared: Prepared, base: State, noise: Mapping[int, float], images: np.ndarray, sqnr_db: float, progress: Progress
) -> Iterator[Affordable]:
    """Yield what can be kept in float, the largest first; what comes later is looked for only when it is asked for.

    Args:
        prepared: the network; its simulator takes states on.
        base: weights and ranges.
        noise: that rounding a point of the base alone adds to the logits, as a share of their power; empty: not known.
        images: calibration images, uint8 [n, height, width, 3].
        sqnr_db: how good the network is without islands.
        progress: called with the step.
    """
    from converters.int8 import islands
    from converters.int8.costs import noise_alone

    simulator = prepared.simulator
    limit, most = (DEAR, MANY) if sqnr_db < POOR_DB else (CHEAP, FEW)
    latencies = IslandLatency(prepared, base, images, progress)
    tell = functools.partial(progress, "what each tensor costs")
    singles = islands.smallest(simulator, noise or noise_alone(simulator, base, images, tell), most)
    costs = latencies([frozenset(), *(one.nodes for one in singles)], openings=3)
    dearer = {one: cost - costs[0] for one, cost in zip(singles, costs[1:], strict=True)}
    unions = islands.unions(simulator, dearer, (limit - 1) * costs[0])
    if not unions:
        return
    whole, *measured = latencies([frozenset(), *unions], openings=4)
    some = images[:: max(1, len(images) // ALIKE_IMAGES)][:ALIKE_IMAGES]
    tried = set[frozenset[int]]()
    for union, latency in sorted(zip(unions, measured, strict=True), key=lambda pair: -len(pair[0])):
        ratio = latency / whole
        if ratio > limit:
            continue
        progress("simulate: islands of float in another runtime", 0, 0)
        found = islands.alike(simulator, base, [one for one in dearer if one.nodes <= union], some)
        if not found.nodes:
            return
        if found.nodes in tried:
            continue
        tried.add(found.nodes)
        if found.nodes != union:
            again, latency = latencies([frozenset(), found.nodes], openings=4)
            ratio = latency / again
        if ratio <= limit:
            yield Affordable(found.nodes, islands.names(simulator, found.nodes), ratio, found.parted)
