"""A float network becomes integer artifacts: calibrated, corrected, judged, and proven before they get their names."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from edgenet import publish
from edgenet.artifact import Artifact, Attempt, Manifest
from edgenet.conditions import crowd_here
from edgenet.dataset import batches
from edgenet.errors import EdgenetError, UsageError
from edgenet.hygiene import check_images, pixels_sha256, refuse_overlap
from edgenet.image import Preprocessing
from edgenet.int8.candidates import Corrected, IntegerPrecision, Work, correct_network, held_out, hold_against_simulator
from edgenet.int8.trial import Candidate, Images, choose, classes, drop_points
from edgenet.nets.network import Network
from edgenet.order import Calibration, Demand, Order
from edgenet.progress import Progress

if TYPE_CHECKING:
    from converters.int8.explain import Loss

FEWEST_TO_CORRECT = 20
"""With fewer calibration images there is too little to correct by and to judge by."""

BATCH = 16
"""Images at a time; what memory conversion takes beyond TensorFlow's own goes with it."""

LABELLED_BATCH = 100
"""Labelled images at a time: enough for the simulator's batches and for all cores."""

HELD_BYTES = 500_000_000
"""Of labelled images that are kept in memory; more of them are decoded anew for each step."""


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
        drops = (drop_points(self.float_top1, a.top1) for a in kept)
        return tuple(drop for drop in drops if drop is not None)


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
    edgenet.int8.search), and the file with and the file without are both tried on calibration images that no
    correction saw.

    Args:
        network: the float network.
        precision: of weights and activations.
        calibration: representative images.
        order: what is to be made.
        progress: called with each step.
        demand: how much is done for accuracy.
        warn: called with one line for each thing that is odd about the calibration images, or about a file.

    Raises:
        UsageError: another precision, or effort "best" for another one than int8.
        EdgenetError: the labels do not fit, a picture cannot be read, calibration and validation share images, or a
            file cannot be written.
        ConverterError: a layer cannot be quantized.
        DeviceError: the runtime refuses the file.
    """
    if precision not in get_args(IntegerPrecision):
        raise UsageError(
            f'precision {precision!r}: give "int8", "int16x8" or "dynamic"; those in float are edgenet.convert\'s'
        )
    demand = demand or Demand()
    if demand.effort == "best" and precision != "int8":
        raise UsageError(f'effort "best" belongs to int8; {precision} gains nothing by it')
    crowd = crowd_here()  # before this adds to it
    labels = publish.fitting_labels(order.labels or network.labels, network)
    prep = Preprocessing(network.height, network.width, order.crop)
    images = _read("read the calibration images", calibration.files, prep, progress)
    if not len(images) and precision != "dynamic":
        raise EdgenetError(f"{precision} needs calibration images: a folder of about 200 like those it will meet")
    on = _judges(network, images, calibration, demand, prep, progress, warn) if precision != "dynamic" else None
    work = Work(network, precision, images, progress)
    corrected: Corrected | None = None
    if on is not None and demand.effort != "plain":
        corrected = correct_network(work, on, demand) if len(images) >= FEWEST_TO_CORRECT else None
        if corrected is None:
            warn(f"nothing is corrected, calibration alone decides: that takes {_lacking(network, len(images))}")
        elif crowd and corrected.found and corrected.found.timed:
            warn(
                f"this machine is busy ({crowd}): latency decided which layers stay float or get wider, and in noise "
                "fewer may; quantize again when nothing else runs here"
            )
    if demand.names_layers and corrected is None:
        raise EdgenetError(
            f"--keep-float {' '.join(demand.keep_float)} needs int8, {FEWEST_TO_CORRECT} calibration images, and Keras "
            "layers with weights"
        )
    made: list[Artifact] = []
    for format_ in order.formats:
        manifest = publish.draft(network, format_, precision, labels, order, calibration)
        kept, tried = _kept(manifest, work, corrected, on, demand)
        if corrected is not None:
            hold_against_simulator(corrected, tried, warn)
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
    return _explained(result, corrected, on, work, demand)


def _lacking(network: Network, images: int) -> str:
    """Say what corrections take that is not there."""
    if images < FEWEST_TO_CORRECT:
        return f"{FEWEST_TO_CORRECT} calibration images"
    instead = ", not a SavedModel: give the .keras file" if Path(network.source.model).is_dir() else ""
    return f"Keras layers with weights{instead}" if instead else "Keras layers with weights, each of one output"


def _kept(
    manifest: Manifest, work: Work, corrected: Corrected | None, on: Images | None, demand: Demand
) -> tuple[Candidate, tuple[Attempt, ...]]:
    """Write a format plainly and corrected, and keep what answers better; there may be nothing to choose from."""
    candidates = [] if demand.names_layers else [work.plain(manifest)]
    if corrected is not None:
        candidates.append(corrected.file(manifest))
    if on is None or (corrected is None and not len(on.targets)):
        return candidates[0], ()
    tell = functools.partial(work.progress, f"try {manifest.format} {work.precision} on images kept apart")
    tell(0, 0)
    return choose(tuple(candidates), manifest.format, on, tell)


def _read(what: str, files: Sequence[Path], prep: Preprocessing, progress: Progress) -> np.ndarray:
    progress(what, 0, len(files))
    pixels = np.empty((len(files), prep.height, prep.width, 3), np.uint8)
    done = 0
    for batch in batches(files, prep, BATCH):
        pixels[done : done + len(batch)] = batch
        done += len(batch)
        progress(what, done, len(files))
    return pixels


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
    files, targets = ((), np.empty(0, np.int64)) if labelled is None else (labelled.files, labelled.targets)
    few = len(files) * prep.height * prep.width * 3 <= HELD_BYTES
    held = [_read("read the validation images", files, prep, progress)] if files and few else None

    def validation(what: str = "measure top-1 on the validation images") -> Iterator[np.ndarray]:
        return _counted(what, held or batches(files, prep, LABELLED_BATCH), len(files), progress)

    if labelled is not None:
        seen = chain.from_iterable(validation("compare the validation images"))
        refuse_overlap(calibration.files, images, seen, files[0].parent.parent)
    progress("run the float network", 0, 0)
    answers = _scores(network, images)
    for line in check_images(calibration.files, images, answers):
        warn(line)
    apart = held_out(images)
    return Images(images[apart], answers[apart], validation, targets, classes(network.scores(_few(validation()))))


def _counted(what: str, images: Iterable[np.ndarray], total: int, progress: Progress) -> Iterator[np.ndarray]:
    done = 0
    for batch in images:
        progress(what, done, total)
        yield batch
        done += len(batch)


def _scores(network: Network, images: np.ndarray) -> np.ndarray:
    return np.concatenate([np.empty((0, network.classes), np.float32), *network.scores(_few([images]))])


def _few(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield from (batch[start : start + BATCH] for start in range(0, len(batch), BATCH))


def _explained(
    result: Quantized,
    corrected: Corrected | None,
    on: Images | None,
    work: Work,
    demand: Demand,
) -> Quantized:
    """Add what was asked for beyond the files: each layer's loss, and what would lose less."""
    missed = demand.max_drop is not None and any(drop > demand.max_drop for drop in result.drops)
    found = corrected.found if corrected is not None else None
    losses: tuple[Loss, ...] = ()
    if demand.explain and found is not None and corrected is not None:
        from converters.int8.explain import explain

        tell = functools.partial(work.progress, "explain each layer's loss")
        tell(0, 0)
        written = {a.what for file in result.files for a in _attempts(file) if a.kept and a.subject != "simulator"}
        start = found.prepared.start
        base, state = (found.base, found.state) if corrected.what in written else (start, start)
        base = dataclasses.replace(base, ranges=state.ranges)
        losses = explain(found.prepared.simulator, base, state, work.images, tell)
    advice = ""
    if missed and on is not None:
        from edgenet.int8.advice import advise

        advice = advise(found, work.images, work.training, on, demand, work.progress)
    return dataclasses.replace(result, losses=losses, advice=advice)


def _attempts(file: Artifact) -> tuple[Attempt, ...]:
    return file.manifest.quantization.attempts if file.manifest.quantization else ()
