"""Ways to write one network as an integer file: as it is, or corrected; each becomes a Candidate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from devices.machine import at_once
from edgenet import publish
from edgenet.artifact import Attempt, Manifest
from edgenet.int8.trial import Candidate, Images
from edgenet.nets.network import Network
from edgenet.order import Demand
from edgenet.progress import Progress

if TYPE_CHECKING:
    import keras

    from converters.int8.prepare import Prepared
    from converters.int8.simulator import State
    from edgenet.int8.search import Found

IntegerPrecision = Literal["int8", "int16x8", "dynamic"]

HOLD_OUT_EVERY = 3
"""Every third calibration image is kept apart from corrections, to judge them by."""

FOLDED = "folded"
"""What a file is called that the search could not correct: the network's batch norms are in its weights."""

PROVEN_DB = 0.5
"""A file's SQNR may differ by so much from the simulator's."""


def held_out(images: np.ndarray) -> np.ndarray:
    """Say which of the calibration images no correction may see, bool [n]."""
    apart: np.ndarray = np.arange(len(images)) % HOLD_OUT_EVERY == 0
    return apart


@dataclass(frozen=True, slots=True)
class Work:
    """What all ways to quantize start from."""

    network: Network
    precision: IntegerPrecision
    images: np.ndarray
    progress: Progress

    @property
    def training(self) -> np.ndarray:
        """The images that corrections may see."""
        seen: np.ndarray = self.images[~held_out(self.images)]
        return seen

    def plain(self, manifest: Manifest) -> Candidate:
        """Quantize the network as it is, by calibration alone."""
        name = f"{self.network.name} -> {manifest.format} {self.precision}"
        tell = functools.partial(_tell, self.progress, name, len(self.images))
        tell(0)
        return self.candidate("calibration alone", self.network.core, self.network.offset, manifest, tell)

    def candidate(
        self, what: str, core: keras.Model, offset: float, manifest: Manifest, tell: Callable[[int], None]
    ) -> Candidate:
        """Quantize a network that reads level * scale + offset, its ranges measured."""
        given: dict[str, Any] = {"scale": self.network.scale, "offset": offset, "precision": self.precision}
        if manifest.format == "tflite":
            from converters import to_tflite

            model = to_tflite.quantize(to_tflite.trace(core), [self.images], threads=at_once(), progress=tell, **given)
            return Candidate(what, publish.labelled(model.flatbuffer, manifest), model.kept_float, "")
        from converters import to_onnx

        metadata = publish.properties(manifest)
        written = to_onnx.quantize(core, [self.images], metadata=metadata, progress=tell, **given)
        return Candidate(what, written.onnx, written.kept_float, written.fallback)


@dataclass(frozen=True, slots=True)
class Corrected:
    """A corrected network, ready to be written; found: by the search, which int8 alone has."""

    work: Work
    what: str
    prepared: Prepared
    state: State
    found: Found | None = None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """What the search tried."""
        return self.found.attempts if self.found else ()

    def file(self, manifest: Manifest) -> Candidate:
        """Write it in one format, with the ranges that were decided."""
        from converters.int8 import prepare

        name = f"{self.work.network.name} -> {manifest.format} {self.work.precision}, corrected"
        self.work.progress(name, 0, 0)
        if self.work.precision != "int8":
            prepare.load(self.prepared, self.state)
            core, offset = self.prepared.simulator.core, self.prepared.offset
            return self.work.candidate(self.what, core, offset, manifest, lambda _: None)
        if manifest.format == "tflite":
            model = prepare.Writer(self.prepared, self.state, self.work.images).tflite(self.state)
            return Candidate(self.what, publish.labelled(model.flatbuffer, manifest), model.kept_float, "")
        written = prepare.onnx(self.prepared, self.state, self.work.images, publish.properties(manifest))
        return Candidate(self.what, written.onnx, written.kept_float, written.fallback)


def correct_network(work: Work, on: Images, demand: Demand) -> Corrected | None:
    """Correct a network for a precision; None where there is nothing to correct."""
    network, training = work.network, work.training
    if work.precision == "int8":
        from edgenet.int8.search import search

        found = search(network, training, on, demand, work.progress)
        if found is None:
            return None
        return Corrected(work, _steps(found.attempts), found.prepared, found.state, found)
    from converters.int8 import prepare
    from converters.int8.correct import METHODS, correct

    work.progress("correct the biases", 0, 0)
    prepared = prepare.prepare(network.core, training, scale=network.scale, offset=network.offset)
    if prepared is None:
        return None
    whole = dataclasses.replace(prepared.start, ranges={})  # activations of 16 bits lose nothing to correct for
    state = correct(prepared.simulator, whole, training, METHODS[0])
    return Corrected(work, METHODS[0].name, prepared, state)


def _steps(attempts: Sequence[Attempt]) -> str:
    """Name what the state that was found is made of."""
    steps = [attempt.what for attempt in attempts if attempt.kept][1:]
    methods = [step for step in steps if "bias correction" in step]
    others = [step.split(",")[0] for step in steps if step not in methods]
    return " + ".join(methods[-1:] + others) or FOLDED


def hold_against_simulator(corrected: Corrected, tried: Sequence[Attempt], warn: Callable[[str], None]) -> None:
    """Say so where a file does not answer what the simulator had decided on."""
    simulated = next((attempt for attempt in reversed(corrected.attempts) if attempt.kept), None)
    for file in tried:
        if simulated and file.what == corrected.what and abs(file.sqnr_db - simulated.sqnr_db) > PROVEN_DB:
            warn(
                f"the {file.subject} file reaches {file.sqnr_db:.1f} dB where the simulator said "
                f"{simulated.sqnr_db:.1f}: this runtime computes otherwise; trust the file's figures"
            )


def _tell(progress: Progress, step: str, total: int, done: int) -> None:
    progress(step, done, total)
