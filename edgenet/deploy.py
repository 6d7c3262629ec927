"""A float network becomes artifacts: convert and quantize. Each file is proven before it gets its name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from devices.machine import cores
from edgenet import publish
from edgenet.artifact import Artifact, Attempt, Manifest
from edgenet.dataset import batches
from edgenet.errors import EdgenetError
from edgenet.image import Preprocessing
from edgenet.labels import Labels
from edgenet.nets.network import Network
from edgenet.order import Calibration, Order
from edgenet.trial import Candidate, HeldOut, choose

if TYPE_CHECKING:
    import keras

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and of how much (0: nobody knows)."""

IntegerPrecision = Literal["int8", "int16x8", "dynamic"]
Effort = Literal["plain", "fast"]

CORRECT_EVERY = 3
"""Every third calibration image corrects biases; the others are kept apart, to judge the correction by."""

FEWEST_TO_CORRECT = 20
"""With fewer calibration images there is too little to correct by and to judge by."""

BATCH = 16
"""Images at a time; what memory conversion takes beyond TensorFlow's own goes with it."""


def convert(
    network: Network, precision: Literal["float32", "float16"], order: Order, progress: Progress
) -> tuple[Artifact, ...]:
    """Convert a network into float files, one a format, each opened by its runtime and run once.

    Raises:
        EdgenetError: the labels do not fit, or a file cannot be written.
        ConverterError: a layer cannot be converted.
        DeviceError: the runtime refuses the file.
    """
    labels = _fitting(order.labels or network.labels, network)
    made: list[Artifact] = []
    for format_ in order.formats:
        progress(f"{network.name} -> {format_} {precision}", 0, 0)
        manifest = publish.draft(network, format_, precision, labels, order, None)
        if format_ == "tflite":
            from converters import to_tflite

            graph = to_tflite.trace(network.core, precision)
            model = to_tflite.convert(graph, scale=network.scale, offset=network.offset)
            content, fallback = publish.labelled(model.flatbuffer, manifest), ""
        else:
            from converters import to_onnx

            written = to_onnx.convert(
                network.core,
                scale=network.scale,
                offset=network.offset,
                precision=precision,
                metadata=publish.properties(manifest),
            )
            content, fallback = written.onnx, written.fallback
        made.append(
            publish.publish(
                content, dataclasses.replace(manifest, tools=publish.tools(format_, precision, fallback)), order.out
            )
        )
    return tuple(made)


def quantize(
    network: Network,
    precision: IntegerPrecision,
    calibration: Calibration,
    order: Order,
    progress: Progress,
    *,
    effort: Effort = "fast",
) -> tuple[Artifact, ...]:
    """Quantize a network into integer files, one a format, each opened by its runtime and run once.

    With effort "fast" biases are corrected for the rounding of the weights where that helps: the file with and the file
    without are both tried on calibration images that the correction has not seen. "plain" is calibration alone.

    Raises:
        EdgenetError: the labels do not fit, a picture cannot be read, or a file cannot be written.
        ConverterError: a layer cannot be quantized.
        DeviceError: the runtime refuses the file.
    """
    labels = _fitting(order.labels or network.labels, network)
    prep = Preprocessing(network.height, network.width, order.crop)
    progress("read the calibration images", 0, len(calibration.files))
    pixels = tuple(batches(calibration.files, prep, BATCH))
    images = np.concatenate(pixels) if pixels else np.empty((0, network.height, network.width, 3), np.uint8)
    if not len(images) and precision != "dynamic":
        raise EdgenetError(f"{precision} needs calibration images: a folder of about 200 like those it will meet")
    cores_to_try = {"none": network.core}
    if effort == "fast" and precision != "dynamic" and len(images) >= FEWEST_TO_CORRECT:
        progress("correct the biases", 0, 0)
        corrected = _corrected(network, images)
        if corrected is not network.core:
            cores_to_try["bias correction"] = corrected
    held_out = _held_out(network, images) if len(cores_to_try) > 1 else None
    made: list[Artifact] = []
    for format_ in order.formats:
        manifest = publish.draft(network, format_, precision, labels, order, calibration)
        candidates = tuple(
            _candidate(network, core, correction, precision, manifest, images, progress)
            for correction, core in cores_to_try.items()
        )
        kept = candidates[0]
        attempts: tuple[Attempt, ...] = ()
        if held_out is not None:
            progress(f"try {format_} {precision} on images kept apart", 0, 0)
            kept, attempts = choose(candidates, format_, held_out)
        assert manifest.quantization is not None  # every integer precision has one
        quantization = dataclasses.replace(manifest.quantization, kept_float=kept.kept_float, attempts=attempts)
        tools = publish.tools(format_, precision, kept.fallback)
        made.append(
            publish.publish(
                kept.content, dataclasses.replace(manifest, quantization=quantization, tools=tools), order.out
            )
        )
    return tuple(made)


def _corrected(network: Network, images: np.ndarray) -> keras.Model:
    from converters.bias_correction import correct_biases

    return correct_biases(network.core, images[::CORRECT_EVERY], scale=network.scale, offset=network.offset)


def _held_out(network: Network, images: np.ndarray) -> HeldOut:
    apart = images[np.arange(len(images)) % CORRECT_EVERY != 0]
    few = (apart[start : start + BATCH] for start in range(0, len(apart), BATCH))
    return HeldOut(apart, np.concatenate(list(network.scores(few))))


def _candidate(
    network: Network,
    core: keras.Model,
    correction: str,
    precision: IntegerPrecision,
    manifest: Manifest,
    images: np.ndarray,
    progress: Progress,
) -> Candidate:
    """Quantize one form of the network into the bytes of a file."""
    suffix = "" if correction == "none" else f", with {correction}"
    tell = functools.partial(_tell, progress, f"{network.name} -> {manifest.format} {precision}{suffix}", len(images))
    tell(0)
    if manifest.format == "tflite":
        from converters import to_tflite

        model = to_tflite.quantize(
            to_tflite.trace(core),
            [images],
            scale=network.scale,
            offset=network.offset,
            precision=precision,
            threads=cores(),
            progress=tell,
        )
        return Candidate(correction, publish.labelled(model.flatbuffer, manifest), model.kept_float, "")
    from converters import to_onnx

    written = to_onnx.quantize(
        core,
        [images],
        scale=network.scale,
        offset=network.offset,
        precision=precision,
        metadata=publish.properties(manifest),
        progress=tell,
    )
    return Candidate(correction, written.onnx, written.kept_float, written.fallback)


def _tell(progress: Progress, step: str, total: int, done: int) -> None:
    progress(step, done, total)


def _fitting(labels: Labels | None, network: Network) -> Labels:
    if labels is None:
        return Labels((), None)
    if len(labels.names) != network.classes:
        raise EdgenetError(
            f"the labels name {len(labels.names)} classes and {network.name} answers {network.classes}; "
            "give the labels it was trained with"
        )
    return labels
