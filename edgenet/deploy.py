"""A float network becomes artifacts: convert and quantize. Each file is proven before it gets its name."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from devices.errors import DeviceError
from devices.machine import cores
from devices.model_file import sha256
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
_SCHEMES: dict[Format, dict[Precision, str]] = {
    "tflite": {
        "int8": "int8 weights per channel, int8 activations per tensor, true min / max of every image",
        "int16x8": "int8 weights per channel, int16 activations per tensor, true min / max of every image",
        "dynamic": "int8 weights per channel, activations quantized while running; depthwise convolutions stay float",
    },
    "onnx": {
        "int8": "int8 weights per channel, uint8 activations per tensor, true min / max of every image (QDQ)",
        "int16x8": "int8 weights per channel, uint16 activations per tensor, true min / max of every image (QDQ)",
        "dynamic": "int8 weights per channel, widened to float32 when the file is opened",
    },
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
    labels = _fitting(order.labels or network.labels, network)
    made: list[Artifact] = []
    for format_ in order.formats:
        progress(f"{network.name} -> {format_} {precision}", 0, 0)
        manifest = _manifest(network, format_, precision, labels, order, None)
        if format_ == "tflite":
            from converters import to_tflite

            graph = to_tflite.trace(network.core, precision)
            model = to_tflite.convert(graph, scale=network.scale, offset=network.offset)
            content, fallback = _labelled(model.flatbuffer, manifest), ""
        else:
            from converters import to_onnx

            written = to_onnx.convert(
                network.core,
                scale=network.scale,
                offset=network.offset,
                precision=precision,
                metadata=_properties(manifest),
            )
            content, fallback = written.onnx, written.fallback
        made.append(
            _published(content, dataclasses.replace(manifest, tools=_tools(format_, precision, fallback)), order)
        )
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
        tell = functools.partial(_tell, progress, step, count)
        if format_ == "tflite":
            from converters import to_tflite

            graph = to_tflite.trace(network.core)
            model = to_tflite.quantize(
                graph,
                images,
                scale=network.scale,
                offset=network.offset,
                precision=precision,
                threads=cores(),
                progress=tell,
            )
            content, kept, fallback = _labelled(model.flatbuffer, manifest), model.kept_float, ""
        else:
            from converters import to_onnx

            written = to_onnx.quantize(
                network.core,
                images,
                scale=network.scale,
                offset=network.offset,
                precision=precision,
                metadata=_properties(manifest),
                progress=tell,
            )
            content, kept, fallback = written.onnx, written.kept_float, written.fallback
        assert manifest.quantization is not None  # every integer precision has one
        manifest = dataclasses.replace(
            manifest,
            quantization=dataclasses.replace(manifest.quantization, kept_float=kept),
            tools=_tools(format_, precision, fallback),
        )
        made.append(_published(content, manifest, order))
    return tuple(made)


def _tell(progress: Progress, step: str, total: int, done: int) -> None:
    progress(step, done, total)


def _published(content: bytes, manifest: Manifest, order: Order) -> Artifact:
    """Prove a file under another name, then let it and its manifest appear together."""
    path = order.out / f"{manifest.name}_{manifest.precision}.{manifest.format}"
    with artifact.appearing(path) as partial:
        partial.write_bytes(content)
        manifest = _proven(partial, path, manifest)
        with artifact.appearing(artifact.manifest_path(path)) as beside:
            beside.write_text(artifact.to_json(manifest), encoding="utf-8")
    return Artifact(path, manifest)


def _fitting(labels: Labels | None, network: Network) -> Labels:
    if labels is None:
        return Labels((), None)
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
    scheme = _SCHEMES[format_].get(precision)
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
        tools=(),
        command=order.command,
    )


def _labelled(flatbuffer: bytes, manifest: Manifest) -> bytes:
    from converters.tflite_metadata import with_metadata

    return with_metadata(
        flatbuffer,
        name=manifest.name,
        description=f"{manifest.precision}, made by edgenet {version('edgenet')}; eats raw uint8 RGB",
        # MediaPipe insists on labels; numbers say that nobody knows them.
        labels=manifest.output.labels or [str(index) for index in range(manifest.output.classes)],
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


def _proven(partial: Path, path: Path, manifest: Manifest) -> Manifest:
    """Open the file in a child process, run it once, and hold what it says against the manifest."""
    try:
        with ModelProcess(partial) as process:
            info = process.info
    except DeviceError as exc:
        raise type(exc)(str(exc).replace(str(partial), f"{path}, just made,")) from exc
    image, answer = info.inputs[0], info.outputs[0]
    expected = (1, manifest.input.height, manifest.input.width, 3)
    if (image.shape, image.dtype) != (expected, "uint8") or answer.shape != (1, manifest.output.classes):
        raise EdgenetError(
            f"{manifest.name}: the {manifest.format} file eats {image.dtype} {list(image.shape)} and answers "
            f"{list(answer.shape)}, not what was asked for; this is a bug in edgenet"
        )
    return dataclasses.replace(manifest, sha256=sha256(partial), file_bytes=partial.stat().st_size)


def _tools(format_: Format, precision: Precision, fallback: str) -> tuple[Tool, ...]:
    """Name what took part in making a file."""
    names = ["edgenet", "numpy", "pillow", "keras", "tensorflow", "tensorflow-cpu"]
    if format_ == "tflite":
        names += ["ai-edge-litert"] + (["ai-edge-quantizer"] if precision in _SCHEMES["tflite"] else [])
    else:
        names += ["onnx", "onnxruntime"] + (["tf2onnx"] if fallback else [])
    found = []
    for name in names:
        try:
            found.append(Tool(name, version(name)))
        except PackageNotFoundError:  # tensorflow or tensorflow-cpu: one of them is there
            continue
    return tuple(found)
