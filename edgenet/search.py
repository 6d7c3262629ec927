"""The search for the best int8 form of a network: in the simulator, in a fixed order, each step kept if it helps.

1. Calibration alone: the ranges that were seen, with a hard swish's input cut off where it answers 0.
2. Corrections: biases; GPTQ rounding; weights fitted to the quantized input. The best of them.
3. Equalization of the channels ahead of depthwise layers, with that correction; with none where none helped.
4. Ranges averaged over the images, which cut off what few of them reach.
5. Islands of float, where the SQNR is not high already, as far as their measured latency allows.
6. Distillation, with effort "best".

Corrections and distillation see two thirds of the calibration images; every step is judged by the other third.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgenet.artifact import Attempt
from edgenet.errors import UsageError
from edgenet.nets.network import Network
from edgenet.order import NONE, Demand
from edgenet.trial import Images, better, judged

if TYPE_CHECKING:
    from converters.int8.correct import Method
    from converters.int8.prepare import Prepared
    from converters.int8.simulator import State

Progress = Callable[[str, int, int], None]

ENOUGH_DB = 25.0
"""Above it float buys nothing that a user would see."""

POOR_DB = 20.0
"""Below it float may cost DEAR times the latency of the file without islands, above it CHEAP times."""

CHEAP, DEAR = 1.03, 1.45
FEW, MANY = 4, 20
"""Islands that are looked at, where float must be cheap, and where it may be dear."""

WORTHWHILE_DB = 0.5
"""What islands must gain: they cost time on every image."""

SENSITIVITY_IMAGES = 8

FLOAT16 = "edgenet convert --precision float16 (twice the size, and float's answers)"

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
        attempts: what was tried, in order.
    """

    prepared: Prepared
    state: State
    attempts: tuple[Attempt, ...]


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

    progress("see what each tensor holds", 0, 0)
    every = np.concatenate([training, held_out.images])
    prepared = prepare.prepare(network.core, every, scale=network.scale, offset=network.offset)
    if prepared is None:
        return None
    walk = _Walk(prepared, every, training, held_out, progress)
    walk.attempt("calibration alone", prepared.start)
    walk.corrections()
    walk.equalization()
    walk.clipping()
    walk.islands(demand)
    if demand.effort == "best":
        walk.distillation()
    return Found(prepared, walk.state, tuple(walk.attempts))


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
        self.attempts: list[Attempt] = []
        self._best: Attempt | None = None

    def attempt(self, what: str, state: State, least_db: float = 0.0) -> bool:
        """Judge a state; take it if it is better than the best so far, by at least so much."""
        self.progress(f"simulate: {what}", 0, 0)
        simulator = self.prepared.simulator
        simulator.load(state)
        tried = judged(what, "simulator", self.held_out, simulator.scores)
        before = self._best
        wins = before is None or better((before, tried), len(self.held_out.images)) == 1
        wins = wins and (before is None or tried.sqnr_db >= before.sqnr_db + least_db)
        tried = dataclasses.replace(tried, kept=wins, why=_reason(before, tried, wins, least_db))
        self.attempts.append(tried)
        if wins:
            self._best, self.state = tried, state
        return wins

    def corrections(self) -> None:
        """Try each way to round weights and correct biases."""
        from converters.int8.correct import METHODS

        for method in METHODS:
            if self.attempt(method.name, self._corrected(self.base, method)):
                self.method = method

    def clipping(self) -> None:
        """Try ranges that few images reach beyond, with the correction that was best."""
        from converters.int8 import prepare

        self.progress("average the ranges", 0, 0)
        base = prepare.averaged(self.prepared, self.base, self.every)
        if self.attempt("ranges averaged over images", self._corrected(base, self.method)):
            self.base = base

    def equalization(self) -> None:
        """Try equalized channels, with the correction that was best."""
        from converters.int8 import prepare

        self.progress("equalize", 0, 0)
        base = prepare.equalized(self.prepared, self.every)
        if base is not None and self.attempt("equalization", self._corrected(base, self.method)):
            self.base = base

    def islands(self, demand: Demand) -> None:
        """Keep in float what the user names, or what is worth its latency."""
        from converters.int8 import islands

        simulator = self.prepared.simulator
        if demand.keep_float == (NONE,):
            return
        if demand.names_layers:
            try:
                kept = islands.of_layers(simulator, demand.keep_float)
            except KeyError as exc:
                known = list(self.base.weights)
                raise UsageError(f"--keep-float {exc.args[0]}: no such layer; known are {', '.join(known)}") from exc
            state = self._corrected(dataclasses.replace(self.base, kept_float=kept), self.method)
            self.attempt(f"float: {', '.join(demand.keep_float)}", state)
            self.state = state  # the user's word
            self.attempts[-1] = dataclasses.replace(self.attempts[-1], kept=True, why="you said so")
            return
        assert self._best is not None
        if self._best.sqnr_db < ENOUGH_DB:
            self._worthwhile_islands(self._best.sqnr_db)

    def _worthwhile_islands(self, sqnr_db: float) -> None:
        from converters.int8 import islands
        from converters.int8.sensitivity import Sensitivity

        simulator = self.prepared.simulator
        images = self.every[:: max(1, len(self.every) // SENSITIVITY_IMAGES)][:SENSITIVITY_IMAGES]
        alone = Sensitivity(simulator, self.base).alone(
            images, functools.partial(self.progress, "what each tensor costs")
        )
        limit = DEAR if sqnr_db < POOR_DB else CHEAP
        singles = islands.single(simulator, alone, MANY if sqnr_db < POOR_DB else FEW)
        costs = self._latencies([frozenset(), *(one.nodes for one in singles)], repetitions=2)
        unions = islands.unions(simulator, singles, [cost - costs[0] for cost in costs[1:]], (limit - 1) * costs[0])
        if not unions:
            return
        whole, *measured = self._latencies([frozenset(), *unions], repetitions=5)
        for union, latency in sorted(zip(unions, measured, strict=True), key=lambda pair: -len(pair[0])):
            if latency > limit * whole:
                continue
            names = islands.names(simulator, union)
            base = dataclasses.replace(self.base, kept_float=union)
            what = f"islands of float, {latency / whole:.2f}x the latency: {', '.join(names)}"
            if self.attempt(what, self._corrected(base, self.method), WORTHWHILE_DB):
                self.base = base
            return

    def distillation(self) -> None:
        """Train on the float network's own answers."""
        from converters.int8.distill import BATCH, distill

        simulator = self.prepared.simulator
        steps = int(np.clip(DISTILLATION // (BATCH * simulator.stored_values()), *STEPS))
        state = distill(
            simulator,
            self.state,
            self.base.weights,
            self.training,
            steps=steps,
            progress=functools.partial(self.progress, "distill"),
        )
        self.attempt(f"distillation, {steps} steps", state)

    def _corrected(self, base: State, method: Method | None) -> State:
        from converters.int8.correct import correct

        if method is None:
            return base
        tell = functools.partial(self.progress, method.name)
        return correct(self.prepared.simulator, base, self.training, method, tell)

    def _latencies(self, kept: list[frozenset[int]], repetitions: int) -> list[float]:
        """Measure TFLite files with these nodes in float, in ms; infinite where one leaves the delegate.

        Of each file the fastest tenth counts: neighbours only ever add time.
        """
        from converters.int8 import prepare
        from devices.latency import measure
        from devices.timing import Schedule

        with tempfile.TemporaryDirectory() as folder:
            files = []
            writer = prepare.Writer(self.prepared, self.base, self.every)
            for i, nodes in enumerate(kept):
                self.progress("measure islands of float: write", i, len(kept))
                files.append(Path(folder) / f"{i}.tflite")
                files[-1].write_bytes(writer.tflite(dataclasses.replace(self.base, kept_float=nodes)).flatbuffer)
            self.progress("measure islands of float", 0, 0)
            results = measure(
                files, (1,), Schedule(warmup_s=0.05, duration_s=0.05, min_runs=30, repetitions=repetitions)
            )
        outside = [(one.ops or 0) - (one.delegated_ops or 0) for one in results]
        fastest = [float(np.percentile(one.samples_ns, 10)) / 1e6 for one in results]
        return [ms if left <= outside[0] else math.inf for ms, left in zip(fastest, outside, strict=True)]


def _reason(before: Attempt | None, tried: Attempt, wins: bool, least_db: float) -> str:
    if before is None:
        return "where it begins"
    gain = tried.sqnr_db - before.sqnr_db
    if wins:
        return f"{gain:+.1f} dB"
    if 0 < gain < least_db:
        return f"{gain:+.1f} dB: not worth its latency"
    if gain > 0:
        return f"{gain:+.1f} dB, but agrees on {100 * (before.top1_agreement - tried.top1_agreement):.1f} points less"
    return f"{gain:+.1f} dB: no gain"


def advise(
    found: tuple[Prepared, State] | None, images: np.ndarray, on: Images | None, demand: Demand, progress: Progress
) -> str:
    """Say what would lose no more top-1 than is allowed, in one sentence."""
    if demand.effort == "plain" or found is None or on is None or demand.max_drop is None:
        return f"try --effort best, or {FLOAT16}"
    from converters.int8 import islands
    from converters.int8.correct import METHODS, correct
    from converters.int8.sensitivity import Sensitivity

    (prepared, state), simulator = found, found[0].simulator
    base = dataclasses.replace(prepared.start, ranges=state.ranges)
    some = images[:: max(1, len(images) // SENSITIVITY_IMAGES)][:SENSITIVITY_IMAGES]
    alone = Sensitivity(simulator, base).alone(some, functools.partial(progress, "look for what would lose less"))
    kept = state.kept_float
    for i, island in enumerate(islands.single(simulator, alone)):
        if island.nodes <= kept:
            continue
        kept |= island.nodes
        progress("look for what would lose less: simulate", i, islands.MOST)
        candidate = correct(simulator, dataclasses.replace(base, kept_float=kept), images, METHODS[0])
        simulator.load(candidate)
        tried = judged("float", "simulator", on, simulator.scores)
        assert tried.top1 is not None
        assert on.float_top1 is not None
        drop = 100 * (on.float_top1 - tried.top1)
        if drop <= demand.max_drop:
            options = " ".join(f"--keep-float {name}" for name in islands.names(simulator, kept))
            return f"{options} would reach it ({drop:.1f} points in the simulator)"
    more = "--effort best, or " if demand.effort == "fast" else ""
    return f"try {more}{FLOAT16}; no ten tensors in float reach it"
