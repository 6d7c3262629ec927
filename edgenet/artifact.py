"""Artifact: a model file and its manifest, which says what the file is, what it eats and what it answers.

The manifest lies beside the file as <file>.json. A file without one (a foreign file) is described by what its runtime
says of it.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from devices.runtimes.model_file import sha256
from devices.runtimes.runtime import ModelInfo
from edgenet.errors import EdgenetError, UsageError
from edgenet.image import Preprocessing

Format = Literal["tflite", "onnx"]
Precision = Literal["float32", "float16", "int8", "int16x8", "dynamic", "unknown"]


@dataclass(frozen=True, slots=True)
class Source:
    """The float network that a file was made from, so that it can be built again.

    Attributes:
        model: a network's name, or the absolute path of the user's model file.
        model_sha256: of that file; "" for a name.
        spec: the canonical name of the network; "" for the user's own.
        weights: "imagenet", "none" (random, seed 0), "symbols", "model" (in the model file), or an absolute path.
        weights_sha256: of the weights file; "" where there is none.
        classes: how many the network answers.
        input_range: "0..255" | "0..1" | "-1..1" as the user gave it; "" where the network itself says it.
        size: input size as the user gave it, for a model that leaves it open.
    """

    model: str
    model_sha256: str
    spec: str
    weights: str
    weights_sha256: str
    classes: int
    input_range: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Input:
    """What the file eats: one image, and how a picture becomes one.

    Attributes:
        height: pixels.
        width: pixels.
        dtype: "uint8" in every file made here: raw bytes.
        layout: "NHWC", batch 1; of some foreign files "NCHW".
        colour: "RGB".
        scale: the network inside reads level * scale + offset.
        offset: see scale.
        crop: "center" or "squash".
        interpolation: how it is resized.
        preprocessing_sha256: hash of size, crop and interpolation; equal hashes mean equal pixels.
    """

    height: int
    width: int
    dtype: str
    layout: str
    colour: str
    scale: float
    offset: float
    crop: Literal["center", "squash"]
    interpolation: Literal["area-bilinear"]
    preprocessing_sha256: str

    @property
    def preprocessing(self) -> Preprocessing:
        """The parameters of edgenet.image for this file."""
        return Preprocessing(self.height, self.width, self.crop, self.interpolation)


@dataclass(frozen=True, slots=True)
class Output:
    """What the file answers: one score a class.

    Attributes:
        classes: how many.
        labels: their names in order; empty where unknown.
        wnids: their WordNet ids in order; empty where unknown.
        meaning: "probabilities".
        dtype: "float32" in every file made here.
        scale: of a quantized output; 0 otherwise.
        zero_point: of a quantized output.
    """

    classes: int
    labels: tuple[str, ...]
    wnids: tuple[str, ...]
    meaning: str
    dtype: str
    scale: float
    zero_point: int

    @property
    def sum_tolerance(self) -> float:
        """How far from 1 the sum of its probabilities may be: what rounding each to the output's levels adds up to."""
        return 0.02 + self.classes * self.scale / 2


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to quantize that was tried against the float network, on calibration images that no correction has seen.

    Attributes:
        what: was done: "calibration alone", "bias correction", "distillation", ...
        subject: what answered: the simulator, or a file of a format.
        sqnr_db: of the logits.
        top1_agreement: 0..1.
        top1: on the labelled validation images, 0..1; None without such.
        file_bytes: of a file; None for the simulator.
        latency_ms: median on this machine at 1 thread; None where it was not measured.
        kept: what follows builds on this one; of files: this one was written.
        why: it was kept or not.
    """

    what: str
    subject: Literal["simulator", "tflite", "onnx"]
    sqnr_db: float
    top1_agreement: float
    top1: float | None
    file_bytes: int | None
    latency_ms: float | None
    kept: bool
    why: str


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the integers in the file came about.

    Attributes:
        scheme: such as "int8 weights per channel, int8 activations per tensor".
        calibration_images: how many.
        calibration_sha256: of their contents; "" without calibration.
        calibration_pixels_sha256: of their pixels as the network was shown them, preprocessing included; "" without.
        kept_float: operators that compute in float, such as "HARD_SWISH x 19".
        attempts: what was tried; empty where there was one way only.
    """

    scheme: str
    calibration_images: int
    calibration_sha256: str
    calibration_pixels_sha256: str
    kept_float: tuple[str, ...]
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A library that took part, and its version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything known about one model file."""

    name: str
    format: Format
    precision: Precision
    sha256: str
    file_bytes: int
    source: Source | None  # None: a foreign file
    input: Input
    output: Output
    quantization: Quantization | None
    tools: tuple[Tool, ...]
    command: str
    manifest_version: int = 1


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file and what is known about it."""

    path: Path
    manifest: Manifest


def manifest_path(path: Path) -> Path:
    """Where the manifest of a model file lies."""
    return path.with_name(path.name + ".json")


def load(path: Path) -> Artifact | None:
    """Read a model file's manifest; None where there is none (a foreign file).

    Raises:
        EdgenetError: the manifest is damaged or was changed, or the file is not the one it was written for.
    """
    beside = manifest_path(path)
    try:
        text = beside.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise EdgenetError(f"{beside}: cannot be read ({exc.strerror}); check it and its permissions") from exc
    except UnicodeDecodeError as exc:
        raise EdgenetError(f"{beside}: cannot be read ({exc}); convert the model again") from exc
    try:
        manifest: Manifest = _read(Manifest, json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise EdgenetError(f"{beside}: not a manifest this version reads ({exc}); convert the model again") from exc
    if manifest.input.preprocessing.sha256() != manifest.input.preprocessing_sha256:
        raise EdgenetError(f"{beside}: its size, crop or interpolation was changed by hand; convert the model again")
    if path.is_file() and sha256(path) != manifest.sha256:
        raise EdgenetError(f"{path}: not the file that {beside.name} describes; convert again, or remove the manifest")
    return Artifact(path, manifest)


def describe(
    path: Path,
    info: ModelInfo,
    input_range: tuple[float, float] | None,
    crop: Literal["center", "squash"] = "center",
) -> Artifact:
    """Describe a foreign file by what its runtime says of it.

    Args:
        path: the file.
        info: what the runtime said.
        input_range: scale and offset of a float input; integer inputs take raw bytes and need none.
        crop: how pictures become its input's shape, which no file says.

    Raises:
        UsageError: a float input, and nobody has said what it ranges over.
        EdgenetError: the file is no image classifier.
    """
    image, scores = info.inputs[0], info.outputs[0]
    layout = _layout(image.shape)
    if len(info.inputs) != 1 or not layout:
        raise EdgenetError(f"{path}: its input is {list(image.shape)}, not one RGB image [1, height, width, 3]")
    if len(scores.shape) < 2 or scores.shape[-1] < 2:
        raise EdgenetError(f"{path}: its output is {list(scores.shape)}, not one score a class [1, classes]")
    raw = image.dtype == "uint8" or (image.dtype, image.zero_point) == ("int8", -128)
    if not raw and input_range is None:
        raise UsageError(
            f"{path} takes {image.dtype} and does not say of what range; give --input-range 0..255 | 0..1 | -1..1"
        )
    scale, offset = input_range or (1.0, 0.0)
    height, width = image.shape[1:3] if layout == "NHWC" else image.shape[2:]
    prep = Preprocessing(height, width, crop)
    eats = Input(height, width, image.dtype, layout, "RGB", scale, offset, prep.crop, prep.interpolation, prep.sha256())
    classes = scores.shape[-1]
    labels = info.labels or ()
    if labels == tuple(str(index) for index in range(classes)):
        labels = ()  # numbers stand for names that nobody gave
    answers = Output(classes, labels, (), "scores", scores.dtype, scores.scale, scores.zero_point)
    manifest = Manifest(
        name=path.stem,
        format="tflite" if path.suffix.lower() == ".tflite" else "onnx",
        precision="unknown" if scores.dtype.startswith("float") else "int8",
        sha256=sha256(path),
        file_bytes=info.file_bytes,
        source=None,
        input=eats,
        output=answers,
        quantization=None,
        tools=(),
        command="",
    )
    return Artifact(path, manifest)


def _layout(shape: tuple[int, ...]) -> str:
    """Tell where an input of one RGB image has its channels: "NHWC", or "NCHW" as PyTorch exports it; "" of no such."""
    if len(shape) != 4 or shape[0] != 1 or 3 not in (shape[1], shape[3]):
        return ""
    return "NHWC" if shape[3] == 3 else "NCHW"


def same_network(one: Manifest, other: Manifest) -> bool:
    """Say whether two files differ in precision and format alone; what they were made from may have moved meanwhile."""
    return _origin(one) == _origin(other)


def _origin(manifest: Manifest) -> tuple[object, ...]:
    source = manifest.source
    made_from = source and (source.spec, source.model_sha256, source.weights_sha256, source.input_range)
    return made_from, manifest.input.height, manifest.input.width, manifest.output.classes


def to_json(manifest: Manifest) -> str:
    """Write a manifest as the text that lies beside its file."""
    return json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _read(kind: Any, value: Any) -> Any:
    """Read JSON into a dataclass, field by field, with its types."""
    origin = typing.get_origin(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {field.name for field in dataclasses.fields(kind)}
        if not isinstance(value, dict) or set(value) != known:
            raise ValueError(f"{kind.__name__} needs exactly {', '.join(sorted(known))}")
        return kind(**{name: _read(hints[name], value[name]) for name in known})
    if origin is tuple:
        return tuple(_read(typing.get_args(kind)[0], item) for item in value)
    if origin is Literal:
        if value not in typing.get_args(kind):
            raise ValueError(f"{value!r} is none of {typing.get_args(kind)}")
        return value
    if origin is types.UnionType:
        return None if value is None else _read(typing.get_args(kind)[0], value)
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value
