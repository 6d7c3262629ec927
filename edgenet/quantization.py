"""A float network becomes integer artifacts: calibrated, corrected, judged, and proven before they get their names."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from devices.machine import cores
from edgenet import publish
from edgenet.artifact import Artifact, Attempt, Manifest
from edgenet.dataset import batches
from edgenet.deploy import Progress
from edgenet.errors import EdgenetError
from edgenet.hygiene import check_images, pixels_sha256, refuse_overlap
from edgenet.image import Preprocessing
from edgenet.nets.network import Network
from edgenet.order import Calibration, Demand, Order
from edgenet.trial import Candidate, Images, choose

if TYPE_CHECKING:
    import keras

    from converters.int8.explain import Loss
    from converters.int8.prepare import Prepared
    from converters.int8.simulator import State

IntegerPrecision = Literal["int8", "int16x8", "dynamic"]

HOLD_OUT_EVERY = 3
"""Every third calibration image is kept apart from corrections, to judge them by."""

FEWEST_TO_CORRECT = 20
"""With fewer calibration images there is too little to correct by and to judge by."""

BATCH = 16
"""Images at a time; what memory conversion takes beyond TensorFlow's own goes with it."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """Integer files of one network, and how good they are.

    Attributes:
        files: one a format.
        float_top1: of the float network on the labelled validation images, 0..1; None without such.
        losses: what each layer loses, worst first; empty where nobody asked.
        advice: what would lose less; "" where nobody asked or nothing would.
    """

    files: tuple[Artifact, ...]
    float_top1: float | None = None
    losses: tuple[Loss, ...] = ()
    advice: str = ""

    @property
    def drops(self) -> tuple[float, ...]:
        """Points of top-1 that each file loses on the validation images; empty without such."""
        kept = [a for file in self.files for a in _attempts(file) if a.kept and a.subject != "simulator"]
        base = self.float_top1
        return tuple(100 * (base - a.top1) for a in kept if base is not None and a.top1 is not None)


def quantize(
    network: Network,
    precision: IntegerPrecision,
    calibration: Calibration,
    order: Order,
    progress: Progress,
    *,
    demand: Demand | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Quantized:
    """Quantize a network into integer files, one a format, each opened by its runtime and run once.

    With effort "plain" that is calibration alone. With "fast" and "best" the network is corrected first (see
    edgenet.search), and the file with and the file without are both tried on calibration images that no correction saw.

    Args:
        network: the float network.
        precision: of weights and activations.
        calibration: representative images.
        order: what is to be made.
        progress: called with each step.
        demand: how much is done for accuracy.
        warn: called with one line for each thing that is odd about the calibration images.

    Raises:
        EdgenetError: the labels do not fit, a picture cannot be read, calibration and validation share images, or a
            file cannot be written.
        ConverterError: a layer cannot be quantized.
        DeviceError: the runtime refuses the file.
    """
    demand = demand or Demand()
    labels = publish.fitting_labels(order.labels or network.labels, network)
    prep = Preprocessing(network.height, network.width, order.crop)
    images = _read("read the calibration images", calibration.files, prep, progress)
    if not len(images) and precision != "dynamic":
        raise EdgenetError(f"{precision} needs calibration images: a folder of about 200 like those it will meet")
    on = _judges(network, images, calibration, demand, prep, progress, warn) if precision != "dynamic" else None
    training = images[np.arange(len(images)) % HOLD_OUT_EVERY != 0]
    work = _Work(network, precision, images, progress)
    corrected: _Corrected | None = None
    if on is not None and demand.effort != "plain" and len(images) >= FEWEST_TO_CORRECT:
        corrected = _corrected(work, training, on, demand)
    if demand.names_layers and corrected is None:
        raise EdgenetError(
            f"--keep-float {' '.join(demand.keep_float)} needs int8, {FEWEST_TO_CORRECT} calibration images, and Keras "
            "layers with weights"
        )
    made: list[Artifact] = []
    for format_ in order.formats:
        manifest = publish.draft(network, format_, precision, labels, order, calibration)
        candidates = [] if demand.names_layers else [work.plain(manifest)]
        if corrected is not None:
            candidates.append(corrected.file(manifest))
        if on is not None and (len(candidates) > 1 or len(on.targets)):
            progress(f"try {format_} {precision} on images kept apart", 0, 0)
            kept, tried = choose(tuple(candidates), format_, on)
        else:
            kept, tried = candidates[0], ()
        assert manifest.quantization is not None  # every integer precision has one
        quantization = dataclasses.replace(
            manifest.quantization,
            calibration_pixels_sha256=pixels_sha256(images, prep) if len(images) else "",
            kept_float=kept.kept_float,
            attempts=(*(corrected.attempts if corrected else ()), *tried),
        )
        tools = publish.tools(format_, precision, kept.fallback)
        made.append(
            publish.publish(
                kept.content, dataclasses.replace(manifest, quantization=quantization, tools=tools), order.out
            )
        )
    result = Quantized(tuple(made), on.float_top1 if on else None)
    return _explained(result, corrected, on, images, demand, progress)


def _read(what: str, files: Sequence[Path], prep: Preprocessing, progress: Progress) -> np.ndarray:
    progress(what, 0, len(files))
    pixels = []
    done = 0
    for batch in batches(files, prep, BATCH):
        pixels.append(batch)
        done += len(batch)
        progress(what, done, len(files))
    return np.concatenate(pixels) if pixels else np.empty((0, prep.height, prep.width, 3), np.uint8)


def _judges(
    network: Network,
    images: np.ndarray,
    calibration: Calibration,
    demand: Demand,
    prep: Preprocessing,
    progress: Progress,
    warn: Callable[[str], None],
) -> Images:
    """Look the calibration images over, and set apart what ways to quantize are judged on."""
    labelled = demand.validation
    validation = np.empty((0, *images.shape[1:]), np.uint8)
    if labelled is not None:
        validation = _read("read the validation images", labelled.files, prep, progress)
        refuse_overlap(calibration.files, images, validation, labelled.files[0].parent.parent)
    progress("run the float network", 0, 0)
    answers = _scores(network, images)
    for line in check_images(calibration.files, images, answers):
        warn(line)
    apart = np.arange(len(images)) % HOLD_OUT_EVERY == 0
    targets = np.empty(0, np.int64) if labelled is None else labelled.targets
    return Images(images[apart], answers[apart], validation, targets, _scores(network, validation))


def _scores(network: Network, images: np.ndarray) -> np.ndarray:
    few = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate(list(network.scores(few))) if few else np.empty((0, network.classes), np.float32)


@dataclass(frozen=True, slots=True)
class _Work:
    """What all ways to quantize start from."""

    network: Network
    precision: IntegerPrecision
    images: np.ndarray
    progress: Progress

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

            model = to_tflite.quantize(to_tflite.trace(core), [self.images], threads=cores(), progress=tell, **given)
            return Candidate(what, publish.labelled(model.flatbuffer, manifest), model.kept_float, "")
        from converters import to_onnx

        metadata = publish.properties(manifest)
        written = to_onnx.quantize(core, [self.images], metadata=metadata, progress=tell, **given)
        return Candidate(what, written.onnx, written.kept_float, written.fallback)


@dataclass(frozen=True, slots=True)
class _Corrected:
    """A corrected network, ready to be written."""

    work: _Work
    what: str
    prepared: Prepared
    state: State
    attempts: tuple[Attempt, ...]

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


def _corrected(work: _Work, training: np.ndarray, on: Images, demand: Demand) -> _Corrected | None:
    network = work.network
    if work.precision == "int8":
        from edgenet.search import search

        found = search(network, training, on, demand, work.progress)
        if found is None:
            return None
        return _Corrected(work, _steps(found.attempts), found.prepared, found.state, found.attempts)
    from converters.int8 import prepare
    from converters.int8.correct import METHODS, correct

    work.progress("correct the biases", 0, 0)
    prepared = prepare.prepare(network.core, training, scale=network.scale, offset=network.offset)
    if prepared is None:
        return None
    whole = dataclasses.replace(prepared.start, ranges={})  # activations of 16 bits lose nothing to correct for
    state = correct(prepared.simulator, whole, training, METHODS[0])
    return _Corrected(work, METHODS[0].name, prepared, state, ())


def _steps(attempts: Sequence[Attempt]) -> str:
    """Name what the state that was found is made of."""
    steps = [attempt.what for attempt in attempts if attempt.kept][1:]
    methods = [step for step in steps if step.endswith("bias correction")][-1:]
    others = [step.split(",")[0] for step in steps if not step.endswith("bias correction")]
    return " + ".join(methods + others) or "calibration alone"


def _explained(
    result: Quantized,
    corrected: _Corrected | None,
    on: Images | None,
    images: np.ndarray,
    demand: Demand,
    progress: Progress,
) -> Quantized:
    """Add what was asked for beyond the files: each layer's loss, and what would lose less."""
    missed = demand.max_drop is not None and any(drop > demand.max_drop for drop in result.drops)
    losses: tuple[Loss, ...] = ()
    if demand.explain and corrected is not None and corrected.work.precision == "int8":
        from converters.int8.explain import explain

        progress("explain each layer's loss", 0, 0)
        tell = functools.partial(progress, "explain each layer's loss")
        base = dataclasses.replace(corrected.prepared.start, ranges=corrected.state.ranges)
        losses = explain(corrected.prepared.simulator, base, corrected.state, images, tell)
    advice = ""
    if missed:
        from edgenet.search import advise

        simulated = corrected is not None and corrected.work.precision == "int8"
        found = (corrected.prepared, corrected.state) if corrected is not None and simulated else None
        advice = advise(found, images, on, demand, progress)
    return dataclasses.replace(result, losses=losses, advice=advice)


def _attempts(file: Artifact) -> tuple[Attempt, ...]:
    return file.manifest.quantization.attempts if file.manifest.quantization else ()


def _tell(progress: Progress, step: str, total: int, done: int) -> None:
    progress(step, done, total)
