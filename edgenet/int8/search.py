"""The search for the best int8 form of a network: in the simulator, in a fixed order, each step kept if it helps.

1. Calibration alone: the ranges that were seen, with a hard swish's input cut off where it answers 0.
2. Biases corrected.
3. Narrower ranges, with that correction: of each tensor the one that costs the answers least.
4. Copies of the costliest channels in idle ones, and in those that layers get for it where measured latency allows.
5. Weights rounded by GPTQ; where that helped, weights fitted to the quantized input before. "fast": that alone where
   activations cost most.
6. "best": equalization of the channels ahead of depthwise layers, with the best correction, if any.
7. Islands of float, where the SQNR is not high already, as far as their measured latency allows, and if they win more
   answers than they are foretold to make two runtimes give differently.
8. That correction, and the last of 5, from as many images as memory holds, unless activations cost so much that it
   would not show.
9. "best": distillation.

Corrections and distillation see two thirds of the calibration images; every step is judged by the other third. Nothing
is random but for a seed that never changes; only islands and wider layers depend on the machine, by their latency.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgenet.artifact import Attempt
from edgenet.errors import UsageError
from edgenet.int8 import affordable
from edgenet.int8.side_by_side import fastest_ms
from edgenet.int8.trial import Images, better, judged, noise
from edgenet.nets.network import Network
from edgenet.order import NONE, Demand
from edgenet.progress import Progress

if TYPE_CHECKING:
    from converters.int8.clipping import Cheapest
    from converters.int8.correct import Method
    from converters.int8.prepare import Copied, Prepared
    from converters.int8.simulator import State


CHEAPEST = "ranges that cost least, tensor by tensor"

ENOUGH_DB = 25.0
"""Above it float buys nothing that a user would see."""

MEASURABLE_DB = 0.05
"""Any step must gain it, or agree more often."""

WORTHWHILE_DB = 0.5
"""What islands must gain at least: they cost time on every image."""

DISTILLATION = 16_000_000_000
"""Values that the network stores on all steps' images: 2 to 5 minutes of training on 2 cores, whatever the network."""

STEPS = (150, 500)
"""Of distillation: at least, at most."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the search found.

    Attributes:
        prepared: the network in its simulator.
        state: what to write into files.
        base: float weights, ranges and islands that its corrections started from.
        method: the correction; None where none helped.
        attempts: what was tried, in order.
        timed: latency had a part in it: another machine, or this one when it is busy, may find something else.
    """

    prepared: Prepared
    state: State
    base: State
    method: Method | None
    attempts: tuple[Attempt, ...]
    timed: bool


def search(
    network: Network, training: np.ndarray, held_out: Images, demand: Demand, progress: Progress
) -> Found | None:
    """Find the best int8 form of a network; None where there is nothing to correct.

    Args:
        network: the float network.
        training: calibration images to correct by, uint8 [n, height, width, 3].
        held_out: calibration images to judge by, and the labelled ones, with the float network's answers.
        demand: what the user wants.
        progress: called with the step.

    Raises:
        UsageError: a layer to keep in float does not exist.
        ConverterError: a layer cannot be quantized.
    """
    from converters.int8 import prepare
    from converters.int8.correct import METHODS

    progress("see what each tensor holds", 0, 0)
    every = np.concatenate([training, held_out.images])
    prepared = prepare.prepare(network.core, every, scale=network.scale, offset=network.offset)
    if prepared is None:
        return None
    walk = _Walk(prepared, every, training, held_out, progress)
    if demand.names_layers:
        walk.named(demand)  # a name that there is not is told now, not in minutes
    best = demand.effort == "best"
    walk.attempt("calibration alone", prepared.start)
    nearest, *others = METHODS
    walk.corrections(nearest)
    walk.ranges()
    walk.copies(demand)
    walk.corrections(*others if best or walk.sqnr_db >= affordable.POOR_DB else others[-1:], go_on=best)
    if best:
        walk.equalization()
    walk.islands(demand)
    walk.more_images()
    if best:
        walk.distillation()
    return Found(walk.prepared, walk.state, walk.base, walk.method, tuple(walk.attempts), walk.timed)


def corrected(found: Found, base: State, training: np.ndarray) -> State:
    """Correct another base as the search's own was."""
    from converters.int8.correct import correct, most_images

    if found.method is None:
        return base
    simulator = found.prepared.simulator
    return correct(simulator, base, training, found.method, most=most_images(simulator))


class _Walk:
    """The steps of the search, one after another; `state` is the best so far."""

    def __init__(
        self, prepared: Prepared, every: np.ndarray, training: np.ndarray, held_out: Images, progress: Progress
    ) -> None:
        self.prepared, self.every, self.training = prepared, every, training
        self.held_out, self.progress = held_out, progress
        self.state = self.base = prepared.start
        """base: float weights and ranges that corrections start from."""
        self.method: Method | None = None
        """The best correction so far; None while none has helped."""
        self._noise: Mapping[int, float] = {}
        """That rounding a point of the base alone adds to the logits, as a share of their power; empty: not known."""
        self._channels: Mapping[int, np.ndarray] = {}
        """The same of each channel alone, in the ranges that were seen."""
        self.attempts: list[Attempt] = []
        self.timed = False
        self._best: Attempt | None = None
        self._most = 0.0  # agreement of any step kept

    @property
    def sqnr_db(self) -> float:
        """Of the best so far."""
        assert self._best is not None
        return self._best.sqnr_db

    def attempt(self, what: str, state: State, least_db: float | None = None) -> bool:
        """Judge a state; take it if it is better than the best so far. least_db: that it must gain for what it costs.

        Agreement may fall by its noise from step to step, but not by more than twice that in all.
        """
        self.progress(f"simulate: {what}", 0, 0)
        simulator = self.prepared.simulator
        simulator.load(state)
        tried = judged(what, "simulator", self.held_out, simulator.scores)
        before, images = self._best, len(self.held_out.images)
        wins = before is None or better((before, tried), images) == 1
        if before is not None:
            self._most = max(self._most, before.top1_agreement)
            little = noise(min(tried.top1_agreement, self._most), images)
            wins = wins and tried.top1_agreement >= self._most - 2 * little
            agrees = least_db is None and tried.top1_agreement > before.top1_agreement + noise(self._most, images)
            wins = wins and (agrees or tried.sqnr_db >= before.sqnr_db + (least_db or MEASURABLE_DB))
        tried = dataclasses.replace(tried, kept=wins, why=_reason(before, tried, wins, least_db))
        self.attempts.append(tried)
        if wins:
            self._best, self.state = tried, state
        return wins

    def corrections(self, *methods: Method, go_on: bool = False) -> None:
        """Try ways to round weights and correct biases, up to the first that does not help; go_on: all of them."""
        for method in methods:
            if self.attempt(method.name, self._corrected(self.base, method)):
                self.method = method
            elif not go_on:
                return

    def ranges(self) -> None:
        """Try the range of each tensor that costs the answers least."""
        found = self._cheapest(self.base)
        wins = self.attempt(CHEAPEST, self._corrected(found.state, self.method))
        if wins:
            self.base = found.state
        self._noise = found.noise if wins else found.before
        self._channels = found.channels

    def copies(self, demand: Demand) -> None:
        """Try copies of the costliest channels in idle ones."""
        self.progress("copy channels", 0, 0)
        found, cost = self._affordable_copies(demand)
        if found is None:
            return
        before, self.prepared = self.prepared, found.prepared
        what = f"{found.count} copies of channels in idle ones{cost}"
        if self.attempt(what, self._corrected(found.state, self.method)):
            self.base, self._noise = found.state, {}
        else:
            self.prepared = before

    def _affordable_copies(self, demand: Demand) -> tuple[Copied | None, str]:
        """Make layers wider for copies, where that costs little latency, and say what; else use what is there.

        Nothing is timed where the user wants no float: that file is the same on every machine.
        """
        from converters.int8 import prepare

        wide = prepare.copied(self.prepared, self.base, self._channels, wider=True)
        if wide is None or not wide.wider or demand.keep_float == (NONE,):
            return wide, ""
        pairs = ((self.prepared, self.base), (wide.prepared, wide.state))
        files = [prepare.Writer(one, state, self.every).tflite(state).flatbuffer for one, state in pairs]
        self.timed = True
        before, after = fastest_ms(files, 4, functools.partial(self.progress, "measure wider layers"))
        if after <= affordable.CHEAP * before:
            return wide, f", {after / before:.2f}x the latency"
        return prepare.copied(self.prepared, self.base, self._channels, wider=False), ""

    def equalization(self) -> None:
        """Try equalized channels, with their own ranges and the correction that was best."""
        from converters.int8 import prepare

        self.progress("equalize", 0, 0)
        wide = prepare.equalized(self.prepared, self.every)
        if wide is None:
            return
        found = self._cheapest(wide)
        if self.attempt("equalization", self._corrected(found.state, self.method)):
            self.base, self._noise = found.state, found.noise

    def _cheapest(self, wide: State) -> Cheapest:
        from converters.int8.clipping import cheapest

        return cheapest(self.prepared, wide, self.every, functools.partial(self.progress, "what each range costs"))

    def more_images(self) -> None:
        """Try the best correction and the last with more images, where memory holds more and weights are what costs."""
        from converters.int8.correct import ENOUGH_IMAGES, METHODS, most_images, spread

        few, most = (len(spread(self.training, n)) for n in (ENOUGH_IMAGES, most_images(self.prepared.simulator)))
        if self.method is None or most <= few or self.sqnr_db < affordable.POOR_DB:
            return
        for method in dict.fromkeys((self.method, METHODS[-1])):  # on few images, chance may have been against the last
            if self.attempt(f"{method.name}, from {most} images", self._corrected(self.base, method, most)):
                self.method = method

    def named(self, demand: Demand) -> frozenset[int]:
        """Find the operators of the layers that the user names."""
        from converters.int8 import islands

        try:
            return islands.of_layers(self.prepared.simulator, demand.keep_float)
        except KeyError as exc:
            known = list(self.base.weights)
            raise UsageError(f"--keep-float {exc.args[0]}: no such layer; known are {', '.join(known)}") from exc

    def islands(self, demand: Demand) -> None:
        """Keep in float what the user names, or what is worth its latency."""
        if demand.keep_float == (NONE,):
            return
        if demand.names_layers:
            self.base = dataclasses.replace(self.base, kept_float=self.named(demand))
            self.state = self._corrected(self.base, self.method)
            self.attempt(f"float: {', '.join(demand.keep_float)}", self.state)
            self._best = self.attempts[-1] = dataclasses.replace(self.attempts[-1], kept=True, why="you said so")
            return
        if self.sqnr_db < ENOUGH_DB:
            self._worthwhile_islands(self.sqnr_db)

    def _worthwhile_islands(self, sqnr_db: float) -> None:
        from converters.int8 import islands

        self.timed = True
        missed = self._missed()
        for one in affordable.affordable(self.prepared, self.base, self._noise, self.every, sqnr_db, self.progress):
            base = dataclasses.replace(self.base, kept_float=one.nodes)
            what = f"islands of float, {one.ratio:.2f}x the latency: {', '.join(one.names)}"
            least_db = max(WORTHWHILE_DB, islands.worthwhile_db(missed, one.parted))
            if self.attempt(what, self._corrected(base, self.method), least_db):
                self.base = base
            if self.attempts[-1].sqnr_db > sqnr_db:  # taken, or too little; where some island harms, fewer may gain
                return

    def _missed(self) -> float:
        """Foretell on which share of images the best so far names another class than the float network."""
        from converters.int8 import islands
        from converters.int8.sensitivity import logits

        simulator = self.prepared.simulator
        simulator.load(self.state)
        return islands.parted(logits(self.held_out.answers), logits(simulator.scores(self.held_out.images)))

    def distillation(self) -> None:
        """Train on the float network's own answers."""
        from converters.int8.distill import BATCH, distill

        simulator = self.prepared.simulator
        steps = int(np.clip(DISTILLATION // (BATCH * simulator.stored_values()), *STEPS))
        what = "distillation"
        tell = functools.partial(self.progress, what)
        state = distill(simulator, self.state, self.base.weights, self.training, steps=steps, progress=tell)
        self.attempt(f"{what}, {steps} steps", state)

    def _corrected(self, base: State, method: Method | None, most: int | None = None) -> State:
        from converters.int8.correct import ENOUGH_IMAGES, correct

        if method is None:
            return base
        tell = functools.partial(self.progress, method.name)
        return correct(self.prepared.simulator, base, self.training, method, tell, most or ENOUGH_IMAGES)


def _reason(before: Attempt | None, tried: Attempt, wins: bool, least_db: float | None) -> str:
    if before is None:
        return "where it begins"
    gain = tried.sqnr_db - before.sqnr_db
    if wins:
        return f"{gain:+.1f} dB"
    if 0 < gain < (least_db or MEASURABLE_DB):
        return f"{gain:+.1f} dB: {'too little to measure' if least_db is None else 'not worth what it costs'}"
    if gain > 0:
        return f"{gain:+.1f} dB, but agrees on {100 * (before.top1_agreement - tried.top1_agreement):.1f} points less"
    return f"{gain:+.1f} dB: no gain"
