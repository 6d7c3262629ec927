"""A float network becomes artifacts: convert and quantize. Each file is proven before it gets its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from devices.model_process import ModelProcess
from edgenet import artifact
from edgenet.artifact import Artifact, Format, Input, Manifest, Output, Precision, Quantization, Tool
from edgenet.dataset import batches, fingerprint, image_files
from edgenet.errors import EdgenetError
from edgenet.image import Preprocessing
from edgenet.labels import Labels
from edgenet.nets.network import Network

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and of how much (0: nobody knows)."""

FEW_IMAGES = 100
_TOOLS = (
    "tensorflow-cpu",
    "tensorflow",
    "keras",
    "ai-edge-quantizer",
    "ai-edge-litert",
    "onnx",
    "onnxruntime",
    "tf2onnx",
)
_SCHEMES: dict[Precision, str] = {
    "int8": "int8 weights per channel, int8 activations per tensor, true min / max of every image",
    "int16x8": "int8 weights per channel, int16 activations per tensor, true min / max of every image",
    "dynamic": "int8 weights per channel, activations quantized while running",
    "float16": "float16 weights, float32 arithmetic",
}


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made.

    Attributes:
        formats: of the files.
        out: folder that they appear in.
        labels: names of the classes; None: the network's own, or else their numbers.
        crop: how a picture that is not of the input's shape is cut: "center" or "squash".
        command: the command line, for the manifest.
    """

    formats: tuple[Format, ...]
    out: Path
    labels: Labels | None = None
    crop: Literal["center", "squash"] = "center"
    command: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Representative images, unlabelled.

    Attributes:
        files: the images.
        sha256: of their contents.
    """

    files: tuple[Path, ...]
    sha256: str

    @property
    def too_few(self) -> bool:
        """Fewer images than the ranges of activations can be trusted to."""
        return len(self.files) < FEW_IMAGES


def calibration_images(folder: Path, limit: int) -> Calibration:
    """Choose calibration images from a folder: all, or `limit` of them spread evenly.

    Raises:
        EdgenetError: there is no image in it.
    """
    files = image_files(folder, limit)
    return Calibration(files, fingerprint(files))


def convert(
    network: Network, precision: Literal["float32", "float16"], order: Order, progress: Progress
) -> tuple[Artifact, ...]:
    """Convert a network into float files, one a format, each opened by its runtime and run once.

    Raises:
        EdgenetError: the labels do not fit, or a file cannot be written.
        ConverterError: a layer cannot be converted.
        DeviceError: the runtime refuses the file.
    """
    from converters import to_tflite

    labels = _fitting(order.labels or network.labels, network)
    made: list[Artifact] = []
    for format_ in order.formats:
        progress(f"{network.name} -> {format_} {precision}", 0, 0)
        manifest = _manifest(network, format_, precision, labels, order, None)
        with artifact.appearing(_path(network, format_, precision, order)) as partial:
            if format_ == "tflite":
                graph = to_tflite.trace(network.core, precision)
                model = to_tflite.convert(graph, scale=network.scale, offset=network.offset)
                partial.write_bytes(_labelled(model.flatbuffer, manifest))
            else:
                from converters import to_onnx

                properties = _properties(manifest)
                to_onnx.convert(
                    network.core,
                    partial,
                    scale=network.scale,
                    offset=network.offset,
                    precision=precision,
                    metadata=properties,
                )
            manifest = _proven(partial, manifest)
        made.append(_saved(_path(network, format_, precision, order), manifest))
    return tuple(made)


def quantize(
    network: Network,
    precision: Literal["int8", "int16x8", "dynamic"],
    calibration: Calibration,
    order: Order,
    progress: Progress,
) -> tuple[Artifact, ...]:
    """Quantize a network into integer files, one a format, each opened by its runtime and run once.

    Raises:
        EdgenetError: the labels do not fit, a picture cannot be read, or a file cannot be written.
        ConverterError: a layer cannot be quantized.
        DeviceError: the runtime refuses the file.
    """
    from converters import to_tflite

    labels = _fitting(order.labels or network.labels, network)
    prep = Preprocessing(network.height, network.width, order.crop)
    count = len(calibration.files)
    progress("read the calibration images", 0, count)
    images = tuple(batches(calibration.files, prep, 32))
    made: list[Artifact] = []
    for format_ in order.formats:
        step = f"{network.name} -> {format_} {precision}"
        progress(step, 0, count)
        manifest = _manifest(network, format_, precision, labels, order, calibration)
        with artifact.appearing(_path(network, format_, precision, order)) as partial:
            if format_ == "tflite":
                graph = to_tflite.trace(network.core)
                model = to_tflite.quantize(
                    graph,
                    images,
                    scale=network.scale,
                    offset=network.offset,
                    precision=precision,
                    progress=lambda done, step=step: progress(step, done, count),  # type: ignore[misc]
                )
                kept = model.kept_float
                partial.write_bytes(_labelled(model.flatbuffer, manifest))
            else:
                from converters import to_onnx

                kept = to_onnx.quantize_network(
                    network.core,
                    partial,
                    images,
                    scale=network.scale,
                    offset=network.offset,
                    precision=precision,
                    metadata=_properties(manifest),
                ).kept_float
            manifest = _proven(partial, manifest, kept)
        made.append(_saved(_path(network, format_, precision, order), manifest))
    return tuple(made)


def _path(network: Network, format_: Format, precision: Precision, order: Order) -> Path:
    return order.out / f"{network.name}_{precision}.{format_}"


def _fitting(labels: Labels | None, network: Network) -> Labels:
    if labels is None:
        return Labels(tuple(str(index) for index in range(network.classes)), None)
    if len(labels.names) != network.classes:
        raise EdgenetError(
            f"the labels name {len(labels.names)} classes and {network.name} answers {network.classes}; "
            "give the labels it was trained with"
        )
    return labels


def _manifest(
    network: Network,
    format_: Format,
    precision: Precision,
    labels: Labels,
    order: Order,
    calibration: Calibration | None,
) -> Manifest:
    prep = Preprocessing(network.height, network.width, order.crop)
    scheme = _SCHEMES.get(precision)
    used = calibration if precision in ("int8", "int16x8") else None
    quantization = None
    if scheme:
        quantization = Quantization(scheme, len(used.files) if used else 0, used.sha256 if used else "", ())
    return Manifest(
        name=network.name,
        format=format_,
        precision=precision,
        sha256="",
        file_bytes=0,
        source=network.source,
        input=Input(
            height=prep.height,
            width=prep.width,
            dtype="uint8",
            layout="NHWC",
            colour="RGB",
            scale=network.scale,
            offset=network.offset,
            crop=prep.crop,
            interpolation=prep.interpolation,
            preprocessing_sha256=prep.sha256(),
        ),
        output=Output(network.classes, labels.names, labels.wnids or (), "probabilities", "float32", 0.0, 0),
        quantization=quantization,
        tools=_tools(),
        command=order.command,
    )


def _labelled(flatbuffer: bytes, manifest: Manifest) -> bytes:
    from converters.tflite_metadata import with_metadata

    return with_metadata(
        flatbuffer,
        name=manifest.name,
        description=f"{manifest.precision}, made by edgenet {version('edgenet')}; eats raw uint8 RGB",
        labels=manifest.output.labels,
        mean=0.0,
        std=1.0,
    )


def _properties(manifest: Manifest) -> dict[str, str]:
    """What an ONNX file says of itself in metadata_props; its readers are other people's programs."""
    eats = manifest.input
    return {
        "producer": f"edgenet {version('edgenet')}",
        "precision": manifest.precision,
        "labels": json.dumps(manifest.output.labels, ensure_ascii=False),
        "input": f"uint8 RGB NHWC [1, {eats.height}, {eats.width}, 3]",
        "normalization": f"inside: level * {eats.scale:.9g} + {eats.offset:.9g}",
        "preprocessing_sha256": eats.preprocessing_sha256,
    }


def _proven(partial: Path, manifest: Manifest, kept_float: Sequence[str] = ()) -> Manifest:
    """Open the file in a child process, run it once, and hold what it says against the manifest."""
    import dataclasses

    with ModelProcess(partial) as process:
        info = process.info
    image, answer = info.inputs[0], info.outputs[0]
    expected = (1, manifest.input.height, manifest.input.width, 3)
    if (image.shape, image.dtype) != (expected, "uint8") or answer.shape != (1, manifest.output.classes):
        raise EdgenetError(
            f"{manifest.name}: the {manifest.format} file eats {image.dtype} {list(image.shape)} and answers "
            f"{list(answer.shape)}, not what was asked for; this is a bug in edgenet"
        )
    quantization = manifest.quantization
    if quantization and kept_float:
        quantization = dataclasses.replace(quantization, kept_float=tuple(kept_float))
    return dataclasses.replace(
        manifest,
        sha256=artifact.sha256(partial),
        file_bytes=partial.stat().st_size,
        quantization=quantization,
    )


def _saved(path: Path, manifest: Manifest) -> Artifact:
    made = Artifact(path, manifest)
    artifact.save(made)
    return made


def _tools() -> tuple[Tool, ...]:
    found = [Tool("edgenet", version("edgenet"))]
    for name in _TOOLS:
        try:
            found.append(Tool(name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)
