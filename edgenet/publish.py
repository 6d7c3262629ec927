"""A converted network becomes an artifact: its manifest, its labels, its proof, its name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from devices.errors import DeviceError
from devices.runtimes.model_file import sha256
from devices.runtimes.model_process import ModelProcess
from edgenet import artifact
from edgenet.appearing import alone, appearing, sync
from edgenet.artifact import Artifact, Format, Input, Manifest, Output, Precision, Quantization, Tool
from edgenet.errors import EdgenetError
from edgenet.image import Preprocessing
from edgenet.labels import Labels

if TYPE_CHECKING:
    from edgenet.nets.network import Network
    from edgenet.order import Calibration, Order

_SCHEMES: dict[Format, dict[Precision, str]] = {
    "tflite": {
        "int8": "int8 weights per channel, int8 activations per tensor",
        "int16x8": "int8 weights per channel, int16 activations per tensor",
        "dynamic": "int8 weights per channel, activations quantized while running; depthwise convolutions stay float",
    },
    "onnx": {
        "int8": "int8 weights per channel, uint8 activations per tensor (QDQ)",
        "int16x8": "int8 weights per channel, uint16 activations per tensor (QDQ)",
        "dynamic": "int8 weights per channel, widened to float32 when the file is opened; depthwise ones stay float",
    },
}


def publish(content: bytes, manifest: Manifest, out: Path) -> Artifact:
    """Prove a file under another name, then let it and its manifest appear together."""
    path = out / f"{manifest.name}_{manifest.precision}.{manifest.format}"
    with contextlib.ExitStack() as both, appearing(path) as partial:
        partial.write_bytes(content)
        manifest = _proven(partial, path, manifest)
        sync(partial)  # so that little lies between the two names
        with appearing(artifact.manifest_path(path)) as beside:
            beside.write_text(artifact.to_json(manifest), encoding="utf-8", errors="backslashreplace")
            both.enter_context(alone(out))
    return Artifact(path, manifest)


def draft(
    network: Network,
    format_: Format,
    precision: Precision,
    labels: Labels,
    order: Order,
    calibration: Calibration | None,
) -> Manifest:
    """Write down all that is known of a file before it exists."""
    prep = Preprocessing(network.height, network.width, order.crop)
    scheme = _SCHEMES[format_].get(precision)
    used = calibration if precision in ("int8", "int16x8") else None
    quantization = None
    if scheme:
        quantization = Quantization(scheme, len(used.files) if used else 0, used.sha256 if used else "", "", (), ())
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


def labelled(flatbuffer: bytes, manifest: Manifest) -> bytes:
    """Put labels and metadata into a TFLite file, where MediaPipe looks for them."""
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


def properties(manifest: Manifest) -> dict[str, str]:
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
        raise type(exc)(str(exc).replace(str(partial), f"{path} (just made)")) from exc
    image, answer = info.inputs[0], info.outputs[0]
    expected = (1, manifest.input.height, manifest.input.width, 3)
    if (image.shape, image.dtype) != (expected, "uint8") or answer.shape != (1, manifest.output.classes):
        raise EdgenetError(
            f"{manifest.name}: the {manifest.format} file eats {image.dtype} {list(image.shape)} and answers "
            f"{list(answer.shape)}, not what was asked for; this is a bug in edgenet"
        )
    return dataclasses.replace(manifest, sha256=sha256(partial), file_bytes=partial.stat().st_size)


def tools(format_: Format, precision: Precision, fallback: str) -> tuple[Tool, ...]:
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


def fitting_labels(labels: Labels | None, network: Network) -> Labels:
    """Return the labels; none where nobody gave any.

    Raises:
        EdgenetError: they name another number of classes than the network answers.
    """
    if labels is None:
        return Labels((), None)
    if len(labels.names) != network.classes:
        raise EdgenetError(
            f"the labels name {len(labels.names)} classes and {network.name} answers {network.classes}; "
            "give the labels it was trained with"
        )
    return labels
