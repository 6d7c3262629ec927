"""Islands: runs of operators that compute in float in the midst of an int8 network, where that buys most.

A tensor is float only where what computes it and all that read it are float. So the smallest island around a costly
tensor is its operator and its readers; islands that nearly touch become one, as the way back to integers between them
costs more than it saves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from converters.int8 import graph
from converters.int8.sensitivity import TINY, logits
from converters.int8.simulator import Simulator, State

OVERSPENT = 2.0
"""Costs of single islands overestimate: each pays for its own way into float and back."""

UNIONS = 5
"""Sets that are measured, from the smallest to the largest."""

GAP = 2
"""Operators between two islands that are bridged."""

FLOAT_ERROR = 6e-7
"""By which LiteRT's float sums differ from ONNX Runtime's: a deep network turns each level that it moves into many.

With half of it, files of V1-0.25, V2 and V3-Small differ by 2.6, 4.0 and 3.2 dB more than foretold.
"""

PARTED = 0.015
"""Share of images that two runtimes may name differently, as FLOAT_ERROR foretells.

Files differ on about twice as many, 1.9 to 2.6 times: on 2.3, 1.7 and 2.0 % of 300 photographs, where 1.2, .7 and .8 %
are foretold for V1-0.25, V2 and V3-Small. So it is no promise of 98 %.
"""

NEAREST = 0.3
"""Share of images that say how near to another name images are."""


def operators(simulator: Simulator) -> list[frozenset[int]]:
    """List what the file computes in one operator each, as positions of nodes, in order: a layer with its ReLU."""
    steps, found = simulator.steps, graph.readers(simulator.core)
    owner: dict[int, int] = {}
    points = set(simulator.points)
    for position in reversed(range(len(steps))):
        reader = graph.only_reader(found, steps[position])
        if position in points or reader is None:
            owner[position] = position
        else:
            owner[position] = owner[simulator.position[id(reader)]]
    grouped: dict[int, set[int]] = {}
    for position, last in owner.items():
        grouped.setdefault(last, set()).add(position)
    return [frozenset(grouped[last]) for last in sorted(grouped)]


def around(simulator: Simulator, point: int) -> frozenset[int]:
    """Return the smallest island in which a point is float; the classifier reads float without being in it."""
    found = graph.readers(simulator.core)
    wanted = {point} | {simulator.position[id(r)] for r in found.get(id(simulator.steps[point].outputs[0]), [])}
    touched = [one for one in operators(simulator) if one & wanted and simulator.classifier not in one]
    return frozenset(position for one in touched for position in one)


def of_layers(simulator: Simulator, names: Iterable[str]) -> frozenset[int]:
    """Return the operators that layers of these names belong to.

    Raises:
        KeyError: no layer has this name.
    """
    known = {step.operation.name: i for i, step in enumerate(simulator.steps)}
    wanted = {known[name] for name in names}
    return frozenset(position for one in operators(simulator) if one & wanted for position in one)


@dataclass(frozen=True, slots=True)
class Island:
    """A smallest island.

    Attributes:
        nodes: positions of the nodes that compute in float.
        noise: that it saves the logits, as a share of their power.
    """

    nodes: frozenset[int]
    noise: float


def smallest(simulator: Simulator, noise: Mapping[int, float], most: int) -> list[Island]:
    """List the smallest islands around the costliest tensors, costliest first.

    Args:
        simulator: of the network.
        noise: that rounding a point alone adds to the logits, as a share of their power.
        most: how many.
    """
    always = simulator.float_points()
    found: dict[frozenset[int], Island] = {}
    for point in sorted(noise, key=lambda point: (-noise[point], point)):
        if len(found) == most:
            break
        nodes = around(simulator, point)
        if nodes not in found and simulator.kinds[point] != "scores":
            saved = sum(noise.get(one, 0.0) for one in simulator.float_points(nodes) - always)
            found[nodes] = Island(nodes, saved)
    return list(found.values())


def unions(simulator: Simulator, costs_ms: Mapping[Island, float], budget_ms: float) -> list[frozenset[int]]:
    """Put islands together as long as what each costs alone adds up to less than a budget, best value first.

    Args:
        simulator: of the network.
        costs_ms: latency that each island adds, costliest tensor first; infinite where it must not be.
        budget_ms: for all.

    Returns:
        Ever larger sets of nodes, UNIONS at most; what lies between islands that nearly touch is float, too. The last
        ones may go beyond the budget: islands that share operators cost less together.
    """
    groups = operators(simulator)
    floor = max(budget_ms, 1e-6) / 100
    chosen: frozenset[int] = frozenset()
    spent, sets = 0.0, []
    for one in sorted(costs_ms, key=lambda one: -one.noise / max(costs_ms[one], floor)):
        together = spent + max(costs_ms[one], 0.0)
        if together > OVERSPENT * budget_ms:
            continue
        spent = together
        chosen = _bridged(groups, chosen | one.nodes)
        sets.append(chosen)
    distinct = list(dict.fromkeys(sets))
    spread = np.linspace(0, len(distinct) - 1, min(UNIONS, len(distinct))) if distinct else ()
    return [distinct[round(i)] for i in spread]


@dataclass(frozen=True, slots=True)
class Alike:
    """Islands with which every runtime answers alike, nearly.

    Attributes:
        nodes: what is in float; nothing where no island may stay.
        parted: share of images that two runtimes are foretold to name differently, 0..1.
    """

    nodes: frozenset[int] = frozenset()
    parted: float = 0.0


def alike(simulator: Simulator, base: State, among: Iterable[Island], images: np.ndarray) -> Alike:
    """Put islands together so that every runtime answers alike, though each adds floats up in another order.

    Where all together part the runtimes on more than PARTED of the images, the exit at which that matters most moves
    behind the next operators, if that is enough. Else islands go: those that end at the worst exits, until what the
    others do alone adds up to less.

    Args:
        simulator: of the network; it takes states on.
        base: weights and ranges.
        among: the islands.
        images: to judge by, uint8 [n, height, width, 3].
    """
    groups, left, shares = operators(simulator), list(among), dict[int, float]()

    def tried(together: frozenset[int]) -> Alike:
        simulator.load(replace(base, kept_float=together), in_order=False)
        right, off = (logits(simulator.scores(images, error)) for error in (0.0, FLOAT_ERROR))
        return Alike(together, parted(right, off))

    while left:
        together = _bridged(groups, frozenset().union(*(one.nodes for one in left)))
        found = tried(together)
        if found.parted <= PARTED:
            return found
        exits = simulator.exits(together)
        right = logits(simulator.scores(images[::3]))
        for at in sorted(exits - shares.keys()):  # for their order, a third of the images says enough
            shares[at] = parted(right, logits(simulator.scores(images[::3], FLOAT_ERROR, at)))
        worst = max(exits, key=lambda at: (shares[at], -at))
        further = _bridged(groups, together | around(simulator, worst))
        if further != together and (found := tried(further)).parted <= PARTED:
            return found
        ends = [_ending(left, at) for at in _too_much(shares, exits)]
        left = [one for one in left if one not in ends]
    return Alike()


def worthwhile_db(missed: float, parts: float) -> float:
    """Return the decibels that islands must gain to win more answers than they part; infinite where none suffice.

    Fewer are missed as the error falls: a tenth of them, with 20 dB less.

    Args:
        missed: share of images that are named otherwise than by the float network, without islands.
        parts: share that islands make two runtimes name differently.
    """
    return -20 * math.log10(1 - parts / missed) if parts < missed else math.inf


def parted(right: np.ndarray, off: np.ndarray) -> float:
    """Return the share of images that logits with an error are to be expected to name differently, 0..1.

    Counting would tell 1 % from 2 % on thousands of images only. An error between two classes, normal with standard
    deviation s, makes up for what is between them as often as s / sqrt(2 pi) times how many images lie in a unit of
    that; the nearest NEAREST of the images tell how many.

    Args:
        right: logits [n, classes].
        off: the same with an error.
    """
    second, first = np.partition(right, -2, axis=1)[:, -2:].T
    density = NEAREST / max(float(np.quantile(first - second, NEAREST)), TINY)
    error = math.sqrt(2) * float((off - right).std(axis=1).mean())  # of a difference of two logits
    return min(1.0, density * error / math.sqrt(2 * math.pi))


def _too_much(shares: Mapping[int, float], exits: Iterable[int]) -> list[int]:
    """List the worst exits, at least one, without which the others part no more than may be in all."""
    left = sorted(exits, key=lambda at: (shares[at], -at))
    gone = [left.pop()]
    while left and sum(shares[at] for at in left) > PARTED:
        gone.append(left.pop())
    return gone


def _ending(among: Iterable[Island], exit_: int) -> Island:
    """Return the island whose last node is nearest to an exit: the exit may lie in a bridge between two."""
    return min(among, key=lambda one: abs(max(one.nodes) - exit_))


def _bridged(groups: list[frozenset[int]], chosen: frozenset[int]) -> frozenset[int]:
    inside = [i for i, one in enumerate(groups) if one <= chosen]
    for i, j in pairwise(inside):
        if 1 < j - i <= GAP + 1:
            chosen = chosen.union(*groups[i + 1 : j])
    return chosen


def names(simulator: Simulator, kept_float: frozenset[int]) -> tuple[str, ...]:
    """Name the weighted layers among some nodes, in order; all layers where none has weights."""
    layers: list[Any] = [simulator.steps[i].operation for i in sorted(kept_float)]
    weighted = [layer for layer in layers if graph.weighted(layer)]
    return tuple(dict.fromkeys(layer.name for layer in weighted or layers))
