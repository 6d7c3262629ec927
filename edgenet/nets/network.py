"""Network: what a user names on the command line, ready to be converted: a Keras model behind its normalization."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from devices.runtimes.model_file import sha256
from edgenet.artifact import Source
from edgenet.errors import EdgenetError, UsageError
from edgenet.labels import Labels
from edgenet.nets.normalization import INPUT_RANGES, affine
from edgenet.spec import ModelSpec, is_spec

if TYPE_CHECKING:
    import keras

_PIXELS = 32 * 640 * 640  # of images that are answered at once, at most: larger ones are fewer
_SAVED_MODEL_FOLDERS = ("variables", "assets", "assets.extra")
_MODEL_SUFFIXES = (".keras", ".h5", ".hdf5", ".pb", ".zip", ".tflite", ".onnx")


@dataclass(frozen=True, slots=True)
class Network:
    """A float network and what it eats.

    Attributes:
        name: what its files are called.
        core: keras.Model, float32 [n, height, width, 3] -> probabilities [n, classes].
        scale: the core reads level * scale + offset, level in 0..255.
        offset: see scale.
        labels: what comes with the network itself (symbols); None otherwise.
        source: how to build it again.
    """

    name: str
    core: keras.Model
    scale: float
    offset: float
    labels: Labels | None
    source: Source

    @property
    def height(self) -> int:
        """Input height in pixels."""
        return int(self.core.inputs[0].shape[1])

    @property
    def width(self) -> int:
        """Input width in pixels."""
        return int(self.core.inputs[0].shape[2])

    @property
    def classes(self) -> int:
        """How many probabilities it answers."""
        return int(self.core.outputs[0].shape[-1])

    def scores(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Answer uint8 batches [n, height, width, 3] with float32 probabilities [n, classes], batch by batch.

        Raises EdgenetError where a layer does not run, MemoryError where it takes too much.
        """
        import tensorflow as tf

        from edgenet.nets.load import brief

        # Traced once for batches of any size: that takes a second or more, and the last batch is smaller.
        takes = [tf.TensorSpec((None, self.height, self.width, 3), tf.float32)]
        answer = tf.function(lambda images: self.core(images, training=False), input_signature=takes)
        step = max(1, _PIXELS // (self.height * self.width))
        for batch in batches:
            rows = [np.empty((0, self.classes), np.float32)]
            for start in range(0, len(batch), step):
                levels = batch[start : start + step].astype(np.float32)
                images = levels * np.float32(self.scale) + np.float32(self.offset)
                try:
                    rows.append(np.asarray(answer(images)))
                except tf.errors.ResourceExhaustedError as exc:
                    raise MemoryError from exc
                except (tf.errors.OpError, ValueError, TypeError) as exc:
                    raise EdgenetError(f"{self.name} does not run: {brief(exc)}") from exc
            yield np.concatenate(rows)


def open_network(
    model: str | Path,
    *,
    weights: str | Path = "",
    classes: int | None = None,
    input_range: str = "",
    size: int | None = None,
    trust: bool = False,
) -> Network:
    """Build or load the network that a user names.

    Args:
        model: a network's name (mobilenet_v2_0.35_96), "symbols", or a path to a .keras, .h5 or SavedModel.
        weights: "imagenet" | "none" | a file; only for a name. "" means imagenet, or the embedded ones of symbols.
        classes: of a named network without weights; otherwise the weights say it.
        input_range: a key of INPUT_RANGES, for a user's model that does not normalize its own input.
        size: input size of a user's model that leaves it open.
        trust: run code (Lambda layers) that the user's file brings.

    Raises:
        UsageError: the request contradicts itself, or lacks what cannot be guessed.
        EdgenetError: a file is missing, damaged, unsafe, or no image classifier.
    """
    model, weights = str(model), str(weights)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the user's keras.json says
    if not names_a_network(model):
        if weights or classes:
            raise UsageError(f"--weights and --classes belong to a network's name; {model} brings its own")
        return _users(Path(model), input_range, size, trust)
    if input_range or size:
        raise UsageError(f"--input-range and --size are for your own models; {model} knows what it eats")
    if model == "symbols":
        if classes:
            raise UsageError("--classes is for other networks; symbols has its own")
        return _symbols(weights)
    return _named(ModelSpec.parse(model), weights or "imagenet", None if classes is None else index(classes))


def open_float(
    model: str, weights: str, classes: int | None, input_range: str, size: int | None, trust: bool
) -> Network:
    """Open a network that stands beside model files in one command: each option goes to whom it concerns."""
    if names_a_network(model):
        return open_network(model, weights=weights, classes=classes)
    return open_network(model, input_range=input_range, size=size, trust=trust)


def names_a_network(model: str) -> bool:
    """Say whether this is a network's name (right or mistyped) rather than the path of a file or folder."""
    if model == "symbols" or is_spec(model):
        return True
    path = Path(model)
    return not (path.exists() or len(path.parts) > 1 or path.suffix.lower() in _MODEL_SUFFIXES)


def check_model(model: str) -> None:
    """Refuse what is plainly no network: a mistyped name, a file that Keras does not write.

    Raises:
        EdgenetError: it cannot be opened.
    """
    if not names_a_network(model):
        from edgenet.nets.load import file_kind

        file_kind(Path(model))
    elif model != "symbols":
        ModelSpec.parse(model)


def reopen(source: Source, *, trust: bool = False) -> Network:
    """Build the network again that an artifact was made from.

    Raises:
        EdgenetError: its files are gone or have changed since.
    """
    if source.model_sha256:
        _unchanged(Path(source.model), source.model_sha256)
    given = source.weights if source.weights in ("imagenet", "none") else ""
    if source.weights not in ("imagenet", "none", "symbols", "model"):
        _unchanged(Path(source.weights), source.weights_sha256)
        given = source.weights
    network = open_network(
        source.model,
        weights=given,
        classes=source.classes if given == "none" else None,
        input_range=source.input_range,
        size=source.size,
        trust=trust,
    )
    if network.source.weights_sha256 != source.weights_sha256:
        raise EdgenetError(
            f"the {source.weights} weights of {source.model} are others than this file was made from; convert it again"
        )
    return network


def fingerprint(path: Path) -> str:
    """Hash a model file, or of a SavedModel's folder what belongs to it, file by file: results may lie there, too."""
    if not path.is_dir():
        return sha256(path)
    import hashlib

    parts = [part for part in path.iterdir() if part.suffix in (".pb", ".pbtxt") or part.name in _SAVED_MODEL_FOLDERS]
    files = sorted(file for part in parts for file in (part, *part.rglob("*")) if file.is_file())
    text = "\n".join(f"{file.relative_to(path).as_posix()} {sha256(file)}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def _unchanged(file: Path, expected: str) -> None:
    if not file.exists():
        raise EdgenetError(f"{file} is gone, which this file was made from; give the float model with --against")
    if fingerprint(file) != expected:
        raise EdgenetError(f"{file} has changed since this file was made from it; convert again, or give --against")


def _as_networks_expect() -> None:
    """Take back what the user's keras.json makes of Keras: networks are float32, with their channels last."""
    import keras

    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")


def _named(spec: ModelSpec, weights: str, classes: int | None) -> Network:
    import dataclasses

    import keras

    from edgenet.nets.build import build
    from edgenet.nets.weights import classes_in, imagenet_weights, load_weights

    _as_networks_expect()

    file: Path | None = None
    if weights == "imagenet":
        file = imagenet_weights(spec)
    elif weights != "none":
        file = Path(weights)
    found = classes_in(file) if file else None
    if classes and found and classes != found:
        raise UsageError(f"{file} answers {found} classes, not {classes}; leave --classes out")
    spec = dataclasses.replace(spec, classes=found or classes or spec.classes)
    if file is None:
        keras.utils.set_random_seed(0)
    core = build(spec)
    if file:
        load_weights(core, file)
    origin = weights if file is None or weights == "imagenet" else str(file.resolve())
    return _built(spec.name, spec, core, None, origin, sha256(file) if file else "")


def _symbols(weights: str) -> Network:
    from edgenet.nets.build import build
    from edgenet.nets.weights import load_weights
    from edgenet.symbols.embedded import SPEC, weights_path
    from edgenet.symbols.glyphs import LABELS

    _as_networks_expect()

    file = Path(weights) if weights else weights_path()
    core = build(SPEC)
    load_weights(core, file)
    origin = str(file.resolve()) if weights else "symbols"
    return _built("symbols", SPEC, core, Labels(LABELS), origin, sha256(file))


def _built(
    name: str, spec: ModelSpec, core: keras.Model, labels: Labels | None, weights: str, weights_sha256: str
) -> Network:
    scale, offset = INPUT_RANGES["-1..1"]
    source = Source(
        model="symbols" if name == "symbols" else spec.name,
        model_sha256="",
        spec=spec.name,
        weights=weights,
        weights_sha256=weights_sha256,
        classes=spec.classes,
        input_range="",
        size=None,
    )
    return Network(name, core, scale, offset, labels, source)


def _users(path: Path, input_range: str, size: int | None, trust: bool) -> Network:
    from edgenet.nets.affine import as_classifier, input_affine
    from edgenet.nets.load import file_kind, load_model, one_line

    try:
        str(path).encode()
    except UnicodeEncodeError as exc:
        raise EdgenetError(f"{path}: a name that is no UTF-8 can stand in no model file; rename it") from exc
    _as_networks_expect()
    model = load_model(path, trust=trust, size=size)
    if any(str(weight.dtype) == "float64" for weight in model.weights):
        raise EdgenetError(f"{path} computes in float64, which no device's kernels do: build and save it in float32")
    with one_line(path):
        inside = input_affine(model)
    if inside is None and not input_range:
        known = " | ".join(INPUT_RANGES)
        if file_kind(path) == "folder":
            raise UsageError(
                f"{path}: a SavedModel does not show what its input ranges over; give --input-range {known} "
                "(0..255 where it normalizes pixels itself)"
            )
        raise UsageError(f"{path} has no Rescaling layer to say what its input ranges over; give --input-range {known}")
    if inside is not None and inside.takes_bytes and input_range not in ("", "0..255"):
        raise UsageError(f"{path} normalizes 0..255 itself (it has a Rescaling layer); leave --input-range out")
    if inside is not None and not inside.takes_bytes and not input_range:
        raise UsageError(
            f"{path} normalizes pixels itself, but would take bytes as far as {inside.farthest:.0f}: they are scaled "
            f"before; give --input-range {' | '.join(INPUT_RANGES)}, what it is given"
        )
    core, (scale, offset) = model, affine(input_range or "0..255")
    if inside is not None:
        core, scale, offset = inside.core, scale * inside.scale, offset * inside.scale + inside.offset
    with one_line(path):
        core = as_classifier(core)
    source = Source(
        model=str(path.resolve()),
        model_sha256=fingerprint(path),
        spec="",
        weights="model",
        weights_sha256="",
        classes=int(core.outputs[0].shape[-1]),
        input_range=input_range,
        size=size,
    )
    name = path.resolve().name
    return Network(name.removesuffix(path.suffix) if path.is_file() else name, core, scale, offset, None, source)
